"""The evaluation harness (lm-eval) with models of ours, without torch: its model, a command, task files.

Importing this makes the model known to the harness:

    lm_eval.simple_evaluate(model="icl", model_args="checkpoint=runs/mine", tasks=[...])
    lm_eval.simple_evaluate(model=IclLM(config=config, params=params, tokenizer=tokenizer), tasks=[...])

`python -m icl.interop.lm_eval` takes the harness's own flags, and `python -m icl.interop.lm_eval.tasks`
writes the synthetic tasks of the GPT-3 paper for it.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icl.interop.lm_eval.adapter import IclLM
    from icl.interop.lm_eval.loading import ModelArgs

__all__ = ["IclLM", "ModelArgs"]

MISSING = "lm-eval is not installed; expected the extra 'harness': pip install 'icl[harness]'"


def _register() -> None:
    """Tells the harness where its model `icl` is; JAX is imported when it is asked for."""
    import lm_eval.models  # noqa: F401  (the harness registers its own models only where there is none yet)
    from lm_eval.api.registry import model_registry

    if "icl" not in model_registry:
        model_registry.register("icl", target="icl.interop.lm_eval.adapter:IclLM")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if find_spec("lm_eval") is None:
        raise ImportError(MISSING)
    from icl.interop.lm_eval import adapter, loading

    return adapter.IclLM if name == "IclLM" else loading.ModelArgs


if find_spec("lm_eval") is not None:
    _register()

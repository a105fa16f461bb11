"""The evaluation harness (lm-eval) with models of ours, without torch: its model `icl`, a command, task files.

Importing this makes the model known to the harness:

    lm_eval.simple_evaluate(model="icl", model_args="checkpoint=runs/mine", tasks=[...])
    lm_eval.simple_evaluate(model=IclLM(config=config, params=params, tokenizer=tokenizer), tasks=[...])

`python -m icl.interop.lm_eval` takes the harness's own flags, and `python -m icl.interop.lm_eval.tasks` writes
the synthetic tasks of the GPT-3 paper for it.
"""

try:
    import lm_eval as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "lm-eval is not installed; expected the extra 'harness': pip install 'icl[harness]'", name=error.name
    ) from error

from icl.interop.lm_eval.adapter import IclLM
from icl.interop.lm_eval.loading import ModelArgs

__all__ = ["IclLM", "ModelArgs"]

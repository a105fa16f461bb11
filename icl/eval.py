"""Measures the in-context learning of checkpoints: zero-, one- and few-shot, with intervals and a report.

python -m icl.eval --checkpoint RUN [--checkpoint RUN ...] --output_dir OUT --gin_file FILE [...]

An interrupted evaluation continues where it stopped. OUT gets results.jsonl, records/, report.html and
tensorboard/.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from icl import app, host_flags
from icl.errors import InputError

_CHECKPOINT = flags.DEFINE_multi_string(
    "checkpoint", [], "A run's folder, one of its checkpoints/STEP, or hf:DIR, a Hugging Face folder."
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder that results are written to.")
_STEP = flags.DEFINE_integer("step", None, "Step of every checkpoint; the newest by default.")
flags.adopt_module_key_flags(app)
flags.adopt_module_key_flags(host_flags)


def main(argv: Sequence[str]) -> int:
    """Evaluates the checkpoints."""
    del argv
    if not _CHECKPOINT.value:
        raise InputError("--checkpoint is missing: expected at least one run's folder")
    if not _OUTPUT_DIR.value:
        raise InputError("--output_dir is missing: expected a folder to write to")

    # Only now: --help and a missing flag should not wait for JAX.
    host_flags.join_hosts()
    from icl.compilation_cache import use_compilation_cache
    from icl.config import load_eval
    from icl.evaluation.runner import describe, evaluate

    config, overrides, mesh, tracking = load_eval(app.GIN_FILE.value, app.GIN_BINDINGS.value)
    use_compilation_cache()
    arguments = (_CHECKPOINT.value, config, Path(_OUTPUT_DIR.value))
    if app.DRY_RUN.value:
        print(describe(*arguments, overrides=overrides, step=_STEP.value))
    else:
        evaluate(*arguments, overrides=overrides, step=_STEP.value, mesh=mesh, tracking=tracking)
    return 0


if __name__ == "__main__":
    app.run(main)

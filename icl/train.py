"""Trains a model, or a ladder of sizes, on packed multi-task sequences.

python -m icl.train --workdir DIR --gin_file FILE [--gin_file FILE ...] [--gin_bindings 'X.y = z' ...]

Running it again on the same DIR resumes it; SIGTERM saves and exits. A ladder writes one folder a rung.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from icl import app, host_flags
from icl.errors import InputError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder that the run writes to and resumes from.")
_RUNGS = flags.DEFINE_list("rungs", [], "Rungs of the ladder to train; all by default.")
_PROFILE = flags.DEFINE_bool(
    "profile", False, "Trace a few steps into DIR/profile, and print where their time went."
)
flags.adopt_module_key_flags(app)
flags.adopt_module_key_flags(host_flags)


def main(argv: Sequence[str]) -> int:
    """Trains each rung in its folder."""
    del argv
    workdir = Path(_WORKDIR.value or "")
    if not app.GIN_FILE.value:
        raise InputError("--gin_file is missing: expected at least one gin file")
    if not _WORKDIR.value and not app.DRY_RUN.value:
        raise InputError("--workdir is missing: expected a folder to write to")

    # Only now: --help and a missing flag should not wait for JAX.
    host_flags.join_hosts(notices_sigterm=not app.DRY_RUN.value)
    from icl.compilation_cache import use_compilation_cache
    from icl.config import load_runs
    from icl.training.loop import train
    from icl.training.setup import Setup

    runs = load_runs(app.GIN_FILE.value, app.GIN_BINDINGS.value, _RUNGS.value or None)
    if app.DRY_RUN.value:
        print("\n\n".join(Setup(run).summary() for run in runs))
        return 0
    use_compilation_cache()
    for run in runs:
        if not train(run, workdir / run.rung, profile=_PROFILE.value):
            break
    return 0


if __name__ == "__main__":
    app.run(main)

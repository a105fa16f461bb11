"""Says whether a run fits on devices that are not there, and what a step costs, by compiling it for them.

python -m icl.plan --gin_file FILE [--gin_file FILE ...] [--gin_bindings 'X.y = z' ...] --topology v5p:8x8x8

TPUs need the TPU compiler: pip install 'icl[plan]'. Exit code 1 where something does not fit.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from icl import app
from icl.errors import InputError

_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "Devices: v4, v5p:2x2x1; v5e, v6e:4x4; two slices v5p:4x4x4@2; gpu:h100x8; cpu:8."
)
_JSON = flags.DEFINE_string("json", None, "File to write the plans to, as a JSON list.")
_RUNGS = flags.DEFINE_list("rungs", [], "Rungs of the ladder to plan; all by default.")
_SEARCH = flags.DEFINE_integer(
    "search", 0, "Tries meshes, remat policies and microbatches, and compiles this many of the best."
)
_EVAL = flags.DEFINE_integer("eval_rows", 0, "Plans evaluation instead: reading this many prompts together.")
flags.adopt_module_key_flags(app)


def main(argv: Sequence[str]) -> int:
    """Plans each rung."""
    del argv
    if not app.GIN_FILE.value:
        raise InputError("--gin_file is missing: expected at least one gin file")
    if not _TOPOLOGY.value:
        raise InputError("--topology is missing: expected devices such as v5p:8x8x8, gpu:h100x8 or cpu:8")
    if _JSON.value and not Path(_JSON.value).parent.is_dir():
        raise InputError(f"--json {_JSON.value}: its folder does not exist")

    from icl.planner.topology import devices_of, parse_topology, prepare_environment

    topology = parse_topology(_TOPOLOGY.value)
    prepare_environment(topology)

    # Only now: JAX reads its environment when it is loaded.
    from icl.config import load_runs
    from icl.planner.compiling import plan_evaluation, plan_training
    from icl.planner.report import plan_json, plan_text
    from icl.planner.search import search

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    runs = load_runs(app.GIN_FILE.value, app.GIN_BINDINGS.value, _RUNGS.value or None)
    devices = devices_of(topology)
    plans, fits = [], True
    for run in runs:
        name = run.rung or "the run"
        if topology.is_compiled and not _SEARCH.value:
            say(f"compiling {name} for {topology.name}: seconds to minutes")
        if _SEARCH.value:
            found = search(run, topology, devices, _SEARCH.value, say)
            fits = fits and any(plan.memory.fits for plan in found)
        elif _EVAL.value:
            found = [plan_evaluation(run, topology, devices, _EVAL.value)]
            fits = fits and found[0].memory.fits
        else:
            found = [plan_training(run, topology, devices)]
            fits = fits and found[0].memory.fits
        print("\n\n".join(map(plan_text, found)), flush=True)
        plans += found
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps([plan_json(plan) for plan in plans], indent=1) + "\n")
    return 0 if fits else 1


if __name__ == "__main__":
    app.run(main)

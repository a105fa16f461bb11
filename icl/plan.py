"""Says whether a run fits on devices that are not there, and what a step costs, by compiling it for them.

python -m icl.plan --gin_file FILE [--gin_file FILE ...] [--gin_bindings 'X.y = z' ...] --topology v5p:8x8x8

Compiling for TPUs needs pip install 'icl[plan]'; GPUs and CPUs are planned from shapes. Exit code 1 where
something does not fit.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from icl import app
from icl.errors import InputError

_PLANS = 4
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "Devices: v4:2x2x1, v5p:8x8x8, v5e:4x4, v6e:4x4; two slices v5p:4x4x4@2; gpu:h100x8; cpu:8.",
)
_JSON = flags.DEFINE_string("json", None, "File to write the plans to, as a JSON list.")
_RUNGS = flags.DEFINE_list("rungs", [], "Rungs of the ladder to plan; all by default.")
_SEARCH = flags.DEFINE_integer(
    "search",
    0,
    f"Try meshes, remat policies and microbatches, and rank so many that fit; {_PLANS} if none is given.",
    lower_bound=0,
)
_EVAL = flags.DEFINE_bool(
    "eval", False, "Plan the reading of prompts by icl.eval in place of the train step."
)
_EVAL_ROWS = flags.DEFINE_integer(
    "eval_rows", None, "Prompts that --eval reads together; a microbatch's rows by default.", lower_bound=1
)
flags.declare_key_flag("gin_file")
flags.declare_key_flag("gin_bindings")


def main(argv: Sequence[str]) -> int:
    """Plans each rung."""
    del argv
    _check_flags()

    from icl.planner.topology import devices_of, parse_topology, prepare_environment

    topology = parse_topology(_TOPOLOGY.value or "")
    prepare_environment(topology)

    # Only now: JAX reads its environment when it is loaded.
    from icl.config import load_runs
    from icl.planner.compiling import Plan, default_rows, plan_evaluation, plan_training
    from icl.planner.report import plan_json, plan_text, ranking_text
    from icl.planner.search import search
    from icl.progress import heartbeat
    from icl.training.config import RunConfig

    runs = load_runs(app.GIN_FILE.value, app.GIN_BINDINGS.value, _RUNGS.value or None)
    devices = devices_of(topology)

    def plan(run: RunConfig) -> list[Plan]:
        if _SEARCH.value:
            return search(run, topology, devices, _SEARCH.value, _say)
        verb = "compiling" if topology.is_compiled else "laying out"
        with heartbeat(_say, f"{verb} {run.rung or 'the run'} for {topology.name}"):
            if _EVAL.value or _EVAL_ROWS.value:
                rows = _EVAL_ROWS.value or default_rows(run, topology.num_chips)
                return [plan_evaluation(run, topology, devices, rows)]
            return [plan_training(run, topology, devices)]

    plans, fits = [], True
    for run in runs:
        found = plan(run)
        texts = [ranking_text(found)] if _SEARCH.value else []
        print("\n\n".join([*texts, plan_text(found[0])]), flush=True)
        fits = fits and found[0].memory.fits
        plans += found
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps([plan_json(plan) for plan in plans], indent=1) + "\n")
    return 0 if fits else 1


def _check_flags() -> None:
    if not app.GIN_FILE.value:
        raise InputError("--gin_file is missing: expected at least one gin file")
    if not _TOPOLOGY.value:
        raise InputError("--topology is missing: expected devices such as v5p:8x8x8, gpu:h100x8 or cpu:8")
    if _JSON.value and not Path(_JSON.value).parent.is_dir():
        raise InputError(f"--json {_JSON.value}: its folder does not exist")
    if _JSON.value and Path(_JSON.value).is_dir():
        raise InputError(f"--json {_JSON.value}: expected a file, this is a folder")
    if _SEARCH.value and (_EVAL.value or _EVAL_ROWS.value):
        raise InputError("--search looks for settings of training: expected no --eval beside it")


def with_search_numbered(arguments: Sequence[str]) -> list[str]:
    """The arguments with a number for a bare `--search`: absl has no flag whose value may be left out."""
    following = [*arguments[1:], ""]
    return [
        f"{word}={_PLANS}" if word in ("--search", "-search") and not after.lstrip("-").isdecimal() else word
        for word, after in zip(arguments, following, strict=True)
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.argv = with_search_numbered(sys.argv)
    app.run(main)

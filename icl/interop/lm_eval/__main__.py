"""Runs the evaluation harness on a model of ours; every flag is the harness's own.

    python -m icl.interop.lm_eval --model_args checkpoint=runs/mine --tasks hellaswag --num_fewshot 5 \\
        --output_path out --log_samples

`--model icl` is the default, and `--batch_size auto` reads 64 requests together. --model_args are:

    checkpoint=RUN          a run's folder, its checkpoints/, or one checkpoints/STEP
    step=N                  step of the checkpoint; the newest by default
    max_length=N            the context in tokens; what is longer loses its start
    max_gen_toks=N          tokens generated at most, where the task does not say (256)
    batch_size=N            as the flag
    add_bos_token=BOOL      whether the start token stands before a text; as the tokenizer has it by default
    prefix_token_id=N       what an empty context is replaced by; the start token by default
    seed=N                  another one samples other texts, where a task samples
    data=N,fsdp=N,tensor=N  devices along the axes of the mesh; -1 takes what the others leave

`--tasks icl_gpt3_synthetic --include_path DIR` asks the synthetic tasks of the GPT-3 paper, once
`python -m icl.interop.lm_eval.tasks --output_dir DIR` has written them. `run --help` lists the harness's
flags, `ls tasks` its tasks.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec

from icl import app
from icl.errors import InputError
from icl.interop.lm_eval import MISSING

_COMMANDS = ("run", "ls", "validate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given in (["--help"], ["-h"]):
        print(__doc__.strip())
        return 0
    if find_spec("lm_eval") is None:
        raise InputError(MISSING)

    # Or the library of data sets would count every file of one's own that is read, over the network.
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    from lm_eval.__main__ import cli_evaluate

    from icl.compilation_cache import use_compilation_cache

    use_compilation_cache()
    sys.argv = ["lm-eval", *with_defaults(given)]
    try:
        cli_evaluate()
    except ValueError as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        if isinstance(error, InputError) or "/lm_eval/config/" not in frame.filename.replace("\\", "/"):
            raise
        raise InputError(str(error)) from error  # a flag that the harness refuses
    return 0


def with_defaults(arguments: Sequence[str]) -> list[str]:
    """The harness's command line: where it runs an evaluation and no file says how, with our defaults."""
    command, rest = "run", list(arguments)
    if rest[0] in _COMMANDS:
        command, rest = rest[0], rest[1:]
    if command != "run" or _has(rest, "--config", "-C") or not rest:
        return [command, *rest]
    for flags, default in ((("--model", "-M"), "icl"), (("--batch_size", "-b"), "auto")):
        if not _has(rest, *flags):
            rest = [flags[0], default, *rest]
    return [command, *rest]


def _has(arguments: Sequence[str], *flags: str) -> bool:
    return any(each in flags or each.startswith(f"{flags[0]}=") for each in arguments)


if __name__ == "__main__":
    app.prepare()
    sys.exit(app.guarded(main))

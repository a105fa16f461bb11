"""What the commands of experiments share: a folder, a size, lines of gin, and a table at the end."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from absl import flags

from icl import app
from icl.errors import InputError

_DIR = flags.DEFINE_string(
    "experiment_dir", None, "Folder that everything is written to; what it holds already is gone on with."
)
_SIZE = flags.DEFINE_enum(
    "size", "cpu", ["smoke", "cpu", "gpu"], "How large the experiment is; smoke only shows that it runs."
)
flags.declare_key_flag("gin_bindings")

Size = TypeVar("Size")
Results = TypeVar("Results")


def run(
    experiment: Callable[[Path, Size, Sequence[str]], Results],
    table: Callable[[Results], Iterable[str]],
    sizes: Mapping[str, Size],
) -> NoReturn:
    """Runs an experiment as the flags say, and prints its table; never returns (`icl.app.run`).

    A program adopts the flags: `flags.adopt_module_key_flags(experiment_command)`.

    Args:
      experiment: Takes its folder, what `sizes` has for the size asked for, and lines of gin.
      table: Lines that say what came out.
      sizes: By "smoke", "cpu" and "gpu".
    """

    def main(argv: Sequence[str]) -> int:
        del argv
        if not _DIR.value:
            raise InputError("--experiment_dir is missing: expected a folder to write to")
        if app.GIN_FILE.value:
            raise InputError("--gin_file: an experiment has its own; --gin_bindings changes single settings")
        if app.DRY_RUN.value:
            raise InputError("--dry_run: an experiment has none; --size smoke does all of it once")
        from icl.compilation_cache import use_compilation_cache

        use_compilation_cache()
        results = experiment(Path(_DIR.value), sizes[_SIZE.value], app.GIN_BINDINGS.value)
        print("\n".join(table(results)))
        return 0

    app.run(main)


def seed_bindings(seed: int) -> list[str]:
    """Lines of gin that give a run a training seed: of its first weights and of its rows."""
    return [f"TrainConfig.seed = {seed}", f"DataConfig.seed = {seed}"]


def train_to_end(run: Any, folder: Path) -> Path:
    """Trains a run in a folder, or goes on there, and returns the folder.

    Args:
      run: A `RunConfig`, or the `FunctionRun` of a run on functions.
      folder: Its own.

    Raises:
      InputError: a setting is wrong, or SIGTERM ended the run, with its state saved.
    """
    from icl.functions import setup
    from icl.functions.config import FunctionRun
    from icl.training.loop import train

    ended = setup.train(run, folder) if isinstance(run, FunctionRun) else train(run, folder)
    if not ended:
        raise InputError("terminated: run the same command again to go on")
    return folder


def write_json(path: Path, content: Any) -> None:
    """Writes a file whole, or not at all."""
    from icl.training.workdir import write_whole

    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content) + "\n")

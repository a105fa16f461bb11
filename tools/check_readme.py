"""Checks the commands that the README, the other pages and the gin files show.

    python -m tools.check_readme [PAGE ...]           what is wrong with them; none is run
    python -m tools.check_readme --run [--keep DIR]   runs those of the README that a comment marks

Flags must exist, gin files and bindings load, the files of the repository that are named be there. Commands
stand in blocks of bash, in `python ...` within text, and below the `#` that a gin file opens with; one with
`...` in it is not whole and is passed over. Exit code 1 where something is wrong.

`--run` takes a fresh copy of the tree and the blocks below `<!-- run -->`, or below
`<!-- run: TrainConfig.steps = 60; EvalConfig.queries = 2 -->`, whose settings make training and evaluation
short; `tools/readme_copy.py` says what files the copy holds besides.
"""

import argparse
import contextlib
import glob
import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import icl
from icl import config
from icl.errors import InputError
from icl.planner.topology import parse_topology
from icl.tasks import FAMILIES
from tools.readme_commands import Command, blocks, commands_of
from tools.readme_copy import run_readme

ROOT = Path(__file__).resolve().parents[1]
BINARIES = ("icl.train", "icl.eval", "icl.plan")
FOLDERS = ("docs/", "experiments/", "gin/", "icl/", "tests/", "tools/")
HARMLESS = ("cd", "git", "huggingface-cli", "source", "tensorboard")


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks pages, or runs the README."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, help="Markdown; by default all that there is to check")
    parser.add_argument("--run", action="store_true", help="run the marked blocks of the README")
    parser.add_argument("--keep", type=Path, help="run in that new folder, and leave it there")
    settings = parser.parse_args(arguments)
    if settings.run:
        return run_readme(ROOT, settings.keep)
    texts = {str(path): path.read_text() for path in settings.pages} or pages()
    with families(texts.values()):
        commands = [command for name, text in texts.items() for command in commands_of(text, name)]
        found = problems(commands)
    for problem in found:
        print(problem, file=sys.stderr)
    print(f"{len(commands)} commands, {len(found)} of them wrong")
    return 1 if found else 0


def pages() -> dict[str, str]:
    """All that shows commands: Markdown, the package's own page, and what gin files open with."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("experiments/**/*.md")]
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(paths)}
    texts["icl/__init__.py"] = icl.__doc__ or ""
    for path in sorted(ROOT.glob("gin/**/*.gin")):
        opening = re.match(r"(#.*\n)+", path.read_text())
        lines = opening[0].splitlines() if opening else []
        shown = "\n".join(line[1:].strip() if line.startswith("#   ") else "" for line in lines)
        texts[str(path.relative_to(ROOT))] = f"```bash\n{shown}\n```"
    return texts


@contextlib.contextmanager
def families(texts: Iterable[str]) -> Iterator[None]:
    """Registers the families of tasks that pages define in Python, for the time being."""
    known = dict(FAMILIES)
    try:
        for text in texts:
            for block in blocks(text, "python"):
                if "@register" in block.text:
                    exec(compile(block.text, "a page", "exec"), {"__name__": "page"})
        yield
    finally:
        for name in FAMILIES.keys() - known.keys():
            del FAMILIES[name]


def problems(commands: Sequence[Command]) -> list[str]:
    """What is wrong with commands, a line each that says where."""
    found = []
    parsed = _parse_flags(commands)
    for command in commands:
        problem = _missing_file(command.words) or _problem(command, parsed)
        if problem:
            found.append(f"{command.where}: {problem}: {shlex.join(command.words)}")
    return found


def _problem(command: Command, parsed: Mapping[tuple[str, ...], Any]) -> str:
    match command.words:
        case ("python", "-m", module) if command.is_name:
            return _missing_module(module)
        case ("python", _) if command.is_name:
            return ""
        case ("python", "-m", module, *_) if module in BINARIES:
            flags = parsed[command.words]
            return flags if isinstance(flags, str) else _settings_problem(module, flags)
        case ("python", "-m", "pytest", *_):
            return ""
        case ("python", "-m", module, *arguments):
            return _tool_problem(module, arguments)
        case ("python", script, *arguments) if re.fullmatch(r"tools/\w+\.py", script):
            return _tool_problem(f"tools.{Path(script).stem}", arguments)
        case ("bash", script, *arguments):
            text = (ROOT / script).read_text() if (ROOT / script).is_file() else ""
            unknown = [word for word in arguments if word.startswith("-") and word not in text.split()]
            return f"{script} has no {unknown[0]}" if unknown else ""
        case ("pip", "install", *arguments):
            return _extras_problem(arguments)
        case (first, *_) if first in HARMLESS:
            return ""
    return "a command that cannot be checked"


def _missing_module(name: str) -> str:
    try:
        return "" if find_spec(name) else f"no module {name}"
    except ModuleNotFoundError as error:  # what it should be in
        return str(error)


def _missing_file(words: Sequence[str]) -> str:
    """Names of the repository's files, and of gin files, that are none."""
    for word in words:
        if word.startswith(FOLDERS) and not glob.glob(str(ROOT / word)):
            return f"{word} does not exist"
    return ""


_FLAG_PARSER = """
import importlib, json, sys
from absl import flags
module = importlib.import_module(sys.argv[1])
prepare = getattr(module, "with_search_numbered", list)
for arguments in json.load(sys.stdin):
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    try:
        left = flags.FLAGS(prepare([sys.argv[1], *arguments]))
        found = f"unexpected argument {left[1]!r}" if left[1:] else flags.FLAGS.flag_values_dict()
    except flags.Error as error:
        found = str(error)
    print(json.dumps(found, default=str))
"""


def _parse_flags(commands: Sequence[Command]) -> dict[tuple[str, ...], Any]:
    """What the flags of commands of the binaries say, or what is wrong with them, by command.

    A process a binary: absl's flags are global, and two binaries have a `--rungs`.
    """
    found: dict[tuple[str, ...], Any] = {}
    for binary in BINARIES:
        own = [command.words for command in commands if command.words[:3] == ("python", "-m", binary)]
        if own:
            said = subprocess.run(
                [sys.executable, "-c", _FLAG_PARSER, binary],
                input=json.dumps([words[3:] for words in own]),
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            found |= dict(zip(own, map(json.loads, said.splitlines()), strict=True))
    return found


def _settings_problem(binary: str, flags: Mapping[str, Any]) -> str:
    """What is wrong with the settings that flags name."""
    try:
        if binary == "icl.eval":
            config.load_eval(flags["gin_file"], flags["gin_bindings"])
            missing = [name for name in ("checkpoint", "output_dir") if not flags[name]]
        else:
            config.load_runs(flags["gin_file"], flags["gin_bindings"], flags["rungs"] or None)
            needed = "topology" if binary == "icl.plan" else "workdir"
            missing = [needed] if not flags[needed] and not flags.get("dry_run") else []
            if binary == "icl.plan" and not missing:
                parse_topology(flags["topology"])
    except InputError as error:
        if str(error).startswith("FineTuneConfig.checkpoint: checkpoint") and "does not exist" in str(error):
            return ""  # read last, and the reader's own
        return str(error)
    return f"--{missing[0]} is missing" if missing else ""


class _ParsedError(Exception):
    """Ends a tool once its arguments are read; says what is wrong with them."""


def _tool_problem(module: str, arguments: Sequence[str]) -> str:
    """What a command that reads its arguments with argparse says of them."""
    try:
        tool = importlib.import_module(module)
        if hasattr(tool, "__path__"):
            tool = importlib.import_module(f"{module}.__main__")
    except ModuleNotFoundError as error:
        return str(error)
    main: Callable[[], object] | None = getattr(tool, "main", None)
    if not main:
        return f"{module} is no command"
    if "argparse" not in vars(sys.modules[main.__module__]):
        return ""  # it hands its arguments on, and would do what it is for

    def refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
        del parser
        raise _ParsedError(message)

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(sys, "argv", [module, *arguments]))
        patches.enter_context(mock.patch.object(argparse.ArgumentParser, "error", refuse))
        for name in ("parse_args", "parse_intermixed_args"):
            parse = _then_stop(getattr(argparse.ArgumentParser, name))
            patches.enter_context(mock.patch.object(argparse.ArgumentParser, name, parse))
        try:
            main()
        except _ParsedError as error:
            return str(error)
    return f"{module} has read no arguments"


def _then_stop(parse: Callable[..., object]) -> Callable[..., NoReturn]:
    def stop(*given: object, **named: object) -> NoReturn:
        parse(*given, **named)
        raise _ParsedError

    return stop


def _extras_problem(arguments: Sequence[str]) -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in arguments:
        for extra in re.findall(r"[\w-]+", "".join(re.findall(r"\[(.*?)\]", word))):
            if extra not in project["optional-dependencies"]:
                return f"no extra {extra!r}"
    return ""


if __name__ == "__main__":
    sys.exit(main())

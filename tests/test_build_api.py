"""The API pages can be built, and everything public says what it is for."""

import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

import icl
from tools import build_api
from tools.readme_commands import blocks

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.slow
def test_every_module_can_be_imported_and_every_public_name_says_what_it_is_for() -> None:
    names = build_api.public_modules(["icl"])
    assert len(names) > 100
    assert build_api.check([name for name in names if name not in build_api.COMMANDS]) == []


@pytest.mark.slow
def test_pages_are_built_with_an_index_to_search_those_of_commands_with_their_flags(tmp_path: Path) -> None:
    modules = "icl.errors,icl.parallel,icl.train,icl.plan"
    command = [
        sys.executable,
        "-m",
        "tools.build_api",
        "--output",
        str(tmp_path / "api"),
        "--modules",
        modules,
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    pages = {path.relative_to(tmp_path / "api").as_posix(): path for path in (tmp_path / "api").rglob("*.*")}
    assert pages.keys() >= {"index.html", "icl/errors.html", "icl/parallel.html", "icl/parallel/mesh.html"}
    assert "make_mesh" in pages["search.js"].read_text()
    package = pages["icl/parallel.html"].read_text()
    assert "make_mesh" in package and f"icl {icl.__version__}" in package
    assert 'href="parallel/mesh.html"' in package  # a module that the package's __all__ does not name
    for name, flags in (("train", ("--rungs", "--workdir")), ("plan", ("--rungs", "--topology"))):
        assert all(f"{flag}: " in pages[f"icl/{name}.html"].read_text() for flag in flags)


def test_earlier_pages_are_replaced_and_any_other_folder_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--output", str(tmp_path), "--modules", "icl.errors"]
    (tmp_path / "mine.txt").write_text("x")
    assert build_api.main(arguments) == 2
    assert "expected an empty folder" in capsys.readouterr().err
    (tmp_path / "mine.txt").unlink()
    assert build_api.main(arguments) == build_api.main(arguments) == 0


SILENT = '''
import dataclasses
from typing import Protocol

class Reads(Protocol):
    """What is read."""
    def read(self) -> str:
        """The whole text."""
        ...

class Reader:
    """Reads."""
    def read(self) -> str: return ""
    def write(self) -> None: pass
    def _skip(self) -> None: pass

class Quiet: pass

@dataclasses.dataclass
class Settings:
    """Settings."""
    field: int = 0

def loud() -> None:
    """Says something."""

def quiet() -> None: pass
'''


def test_what_says_nothing_is_named_but_for_fields_and_methods_of_a_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_module.py").write_text(SILENT)
    monkeypatch.syspath_prepend(tmp_path)
    found = {problem.removesuffix(" has no docstring") for problem in build_api.check(["made_module"])}
    sys.modules.pop("made_module")
    assert found == {"made_module", "made_module.Quiet", "made_module.Reader.write", "made_module.quiet"}


def test_a_module_that_cannot_be_imported_is_named() -> None:
    (problem,) = build_api.check(["icl.errors", "icl.no_such_module"])
    assert problem.startswith("icl.no_such_module cannot be imported: ModuleNotFoundError")


def test_the_python_of_the_landing_page_calls_what_there_is() -> None:
    (code,) = blocks(icl.__doc__ or "", "python")
    with (
        mock.patch("icl.training.train", autospec=True) as train,
        mock.patch("icl.evaluation.runner.evaluate", autospec=True) as evaluate,
    ):
        exec(code.text, {})
    (run, workdir), _ = train.call_args
    (checkpoints, config, _), _ = evaluate.call_args
    assert (run.train.steps, [str(workdir)]) == (500, checkpoints)
    assert config.ks

"""The API pages can be built, and everything public says what it is for."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

import icl
from tools import build_api
from tools.readme_commands import blocks

REPOSITORY = Path(__file__).parent.parent


def test_every_module_can_be_imported_and_every_public_name_says_what_it_is_for() -> None:
    command = [sys.executable, "-m", "tools.build_api", "--check"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_pages_of_some_modules_are_built_with_an_index_to_search(tmp_path: Path) -> None:
    assert build_api.main(["--output", str(tmp_path / "api"), "--modules", "icl.errors,icl.parallel"]) == 0
    pages = {path.relative_to(tmp_path / "api").as_posix() for path in (tmp_path / "api").rglob("*.*")}
    assert pages >= {
        "index.html",
        "search.js",
        "icl/errors.html",
        "icl/parallel.html",
        "icl/parallel/mesh.html",
    }
    page = (tmp_path / "api/icl/parallel.html").read_text()
    assert "make_mesh" in page and f"icl {icl.__version__}" in page
    assert 'href="parallel/mesh.html"' in page  # a module that the package's __all__ does not name
    assert "make_mesh" in (tmp_path / "api/search.js").read_text()


def test_earlier_pages_are_replaced_and_any_other_folder_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--output", str(tmp_path), "--modules", "icl.errors"]
    (tmp_path / "mine.txt").write_text("x")
    assert build_api.main(arguments) == 2
    assert "expected an empty folder" in capsys.readouterr().err
    (tmp_path / "mine.txt").unlink()
    assert build_api.main(arguments) == build_api.main(arguments) == 0


def made_module(folder: Path, code: str) -> ModuleType:
    path = folder / "made_module.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("made_module", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {"made_module": module}):
        spec.loader.exec_module(module)
        build_api.inherit_from_protocols([module])
        return module


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


def test_what_says_nothing_is_named_but_for_fields_and_methods_of_a_protocol(tmp_path: Path) -> None:
    found = set(build_api.undocumented(made_module(tmp_path, SILENT)))
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

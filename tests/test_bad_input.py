"""Bad input gets one line that names it, exit code 2, no traceback, and nothing overwritten.

The cases are those of tools/bad_input.py that need no trained run and no process of their own.
"""

import importlib
import os
import sys
import threading
from pathlib import Path

import pytest
from absl.testing import flagsaver

from icl import app, train
from tools import bad_input

CASES = [case for case in bad_input.cases() if not case.needs_run]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("box")
    bad_input.make_files(folder)
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.tried)
def test_bad_input_is_refused_in_one_line(
    case: bad_input.Case, box: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = bad_input.snapshot(box)
    monkeypatch.setenv("TFDS_DATA_DIR", str(box / "tfds"))
    module, *arguments = [part.replace("{box}", str(box)) for part in case.arguments]
    if module == "icl.train":
        code = train_code([module, *arguments], monkeypatch)
    else:
        code = importlib.import_module(module).main(arguments)

    *_, line = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()
    assert code == 2
    assert line.startswith(("error: ", "prepare_corpus: ", "train_tokenizer: ")) and case.says in line
    assert bad_input.snapshot(box) == before


def train_code(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of `icl.train`."""
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(os, "_exit", sys.exit)
    for module, hook in ((sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, hook, getattr(module, hook))
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
        app.run(train.main)
    return ended.value.code


def test_there_are_a_hundred_kinds_of_bad_input_and_no_two_are_the_same() -> None:
    tried = [case.tried for case in bad_input.cases()]
    assert len(set(tried)) == len(tried) >= 100

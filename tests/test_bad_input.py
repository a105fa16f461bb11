"""Bad input gets one line that names it, exit code 2, no traceback, and nothing overwritten.

The cases are those of tools/bad_input.py that need no trained run and no process of their own.
"""

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
    arguments = [part.replace("{box}", str(box)) for part in case.arguments]
    assert arguments[0] == "icl.train"
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(os, "_exit", sys.exit)
    for module, hook in ((sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, hook, getattr(module, hook))

    with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
        app.run(train.main)

    (line,) = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    assert line.startswith("error: ") and case.says in line
    assert bad_input.snapshot(box) == before


def test_there_are_forty_kinds_of_bad_input_and_no_two_are_the_same() -> None:
    tried = [case.tried for case in bad_input.cases()]
    assert len(set(tried)) == len(tried) >= 40

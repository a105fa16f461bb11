import io
import re
import sys
import time
import types
from typing import Any

import pytest

from icl import progress
from icl.progress import Progress


class _Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_gets_the_first_state_the_last_and_few_between(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A thousand steps of an eighth of a second: at most one line in thirty seconds."""
    with Progress("small", 1000) as shown:
        for step in range(1, 1001):
            clock.now += 0.125
            shown.update(step, f"loss {step / 1000:.4f}")
    said = capsys.readouterr()
    assert said.out == "" and "\r" not in said.err
    assert said.err.splitlines() == [
        "small: step 1/1,000, loss 0.0010",
        "small: step 241/1,000, loss 0.2410, about 94.9 s left",
        "small: step 481/1,000, loss 0.4810, about 64.9 s left",
        "small: step 721/1,000, loss 0.7210, about 34.9 s left",
        "small: step 961/1,000, loss 0.9610, about 4.88 s left",
        "small: step 1,000/1,000, loss 1.0000, took 2.08 min",
    ]


def test_the_last_state_is_told_also_of_work_that_was_interrupted(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt), Progress("small", 100, done=40) as shown:
        for step in range(41, 60):
            clock.now += 1
            shown.update(step)
        raise KeyboardInterrupt
    assert capsys.readouterr().err.splitlines() == [
        "small: step 41/100",
        "small: step 59/100, about 41 s left",
    ]


def test_nothing_is_told_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("one", 1, unit="trial") as shown:
        shown.advance(0)
        shown.advance()
        shown.advance(0)
    with Progress("none", 0, unit="B"):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("one: trial 1/1, took")


def test_bytes_are_told_in_megabytes(clock: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("reading", 20_000_000, unit="B") as shown:
        shown.advance(5_000_000)
        clock.now += 60
        shown.advance(5_000_000)
        shown.rename("writing")
        shown.finish()
    assert capsys.readouterr().err.splitlines() == [
        "reading: 5.0/20.0 MB",
        "reading: 10.0/20.0 MB, about 2 min left",
        "writing: 20.0/20.0 MB, took 60 s",
    ]


def test_a_terminal_gets_one_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("small", 20) as shown:
        for step in range(1, 21):
            time.sleep(0.02)
            shown.update(step, f"loss {step}.5, 9,000 tokens/s")
            if step == 10:
                shown.say("a line of its own")
    text = terminal.getvalue()
    own, *rest = (line for line in text.split("\n") if "own" in line)
    assert own.endswith("\rsmall: a line of its own") and not rest
    assert text.count("\n") == 2  # After that line, and at the end.
    states = re.findall(
        r"small: +\d+%\|[^|]*\| (\d+)/20 \[\d\d:\d\d<[^\]]*loss (\d+).5, 9,000 tokens/s\]", text
    )
    assert len(states) > 3 and states[-1] == ("20", "20")
    assert all(done == loss for done, loss in states)


def test_a_terminal_that_can_only_print_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    with Progress("small", 1) as shown:
        shown.update(1)
    assert terminal.getvalue().startswith("small: step 1/1, took") and "\r" not in terminal.getvalue()


class _NotebookBar:
    """Stands for tqdm's bar of widgets."""

    made: "list[_NotebookBar]" = []

    def __init__(self, *, desc: str, total: int, initial: int, **_: Any) -> None:
        self.desc, self.total, self.n, self.initial = f"{desc}: ", total, initial, initial
        self.postfix, self.is_closed = "", False
        self.made.append(self)

    def unpause(self) -> None:
        pass

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self.postfix = text

    def update(self, count: int) -> None:
        self.n += count

    def close(self) -> None:
        self.is_closed = True


def _enter_notebook(monkeypatch: pytest.MonkeyPatch, *, has_widgets: bool) -> None:
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    bars = types.SimpleNamespace(tqdm=_NotebookBar)
    monkeypatch.setitem(sys.modules, "tqdm.notebook", bars)
    monkeypatch.setattr(progress, "find_spec", lambda name: shell if has_widgets else None)


def test_a_notebook_with_widgets_gets_a_bar_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _enter_notebook(monkeypatch, has_widgets=True)
    with Progress("small", 9, done=3) as shown:
        shown.update(5, "loss 1.5")
        shown.say("compiled")
    (bar,) = _NotebookBar.made
    assert (bar.n, bar.total, bar.postfix, bar.is_closed) == (5, 9, "loss 1.5", True)
    assert capsys.readouterr() == ("small: compiled\n", "")


def test_a_notebook_without_widgets_gets_plain_lines_that_are_not_red(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _enter_notebook(monkeypatch, has_widgets=False)
    with Progress("small", 9, done=3) as shown:
        shown.update(5, "loss 1.5")
    assert capsys.readouterr() == ("small: step 5/9, loss 1.5\n", "")


@pytest.mark.parametrize("place", ["log", "terminal", "notebook"])
def test_hosts_other_than_the_first_print_nothing(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if place == "notebook":
        _enter_notebook(monkeypatch, has_widgets=False)
    terminal = _Terminal()
    if place == "terminal":
        monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("small", 2, is_shown=False) as shown:
        shown.update(1, "loss 1")
        shown.say("compiled")
        shown.finish()
    assert capsys.readouterr() == ("", "") and terminal.getvalue() == ""


def test_a_reader_that_has_gone_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    with Progress("small", 2) as shown:
        shown.say("compiled")
        shown.finish()
    monkeypatch.setattr(sys, "stderr", None)
    with Progress("small", 2) as shown:
        shown.say("compiled")
        shown.finish()

"""How far a piece of work is: a live bar in a terminal or a notebook, elsewhere a plain line now and then.

A log file gets the first state, the last one, and between them a line every half a minute at most; no
carriage returns. What the display cannot say, because nobody reads any more, never ends the work.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, TextIO

from tqdm import tqdm

Say = Callable[[str], None]

EVERY_SECONDS = 30.0
"""Between plain lines."""
_BYTES = "B"


class Progress:
    """Shows how much of a known amount of work is done; a context manager.

    On hosts other than the first, `is_shown` is False and nothing is printed.
    """

    def __init__(
        self, name: str, total: int, *, done: int = 0, unit: str = "step", is_shown: bool = True
    ) -> None:
        """Shows nothing in a log yet; `unit` is what is counted, "B" for bytes."""
        self._done, self._total = done, total
        self._display: _Bar | _Lines | None = _display_of(name, total, done, unit) if is_shown else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, done: int, text: str = "") -> None:
        """So much is done of the whole; `text` says more about it."""
        self._done = done
        if self._display is not None:
            self._display.update(done, text)

    def advance(self, count: int | None = 1) -> None:
        """So much more is done."""
        if count:
            self.update(self._done + count)

    def finish(self) -> None:
        """All is done."""
        self.update(self._total)

    def rename(self, name: str) -> None:
        """What is worked on from now on."""
        if self._display is not None:
            self._display.rename(name)

    def say(self, text: str) -> None:
        """Prints a line of its own."""
        if self._display is not None:
            self._display.say(text)

    def close(self) -> None:
        """Ends the display; a log gets the last state, if it does not have it yet."""
        if self._display is not None:
            self._display.close()
            self._display = None


class _Bar:
    """tqdm's bar, of a terminal or a notebook."""

    def __init__(self, bar: Any, stream: TextIO) -> None:
        self._bar, self._stream = bar, stream
        self._name = bar.desc.removesuffix(": ")

    def update(self, done: int, text: str) -> None:
        if text:
            self._bar.bar_format = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
            self._bar.set_postfix_str(text, refresh=False)
        if self._bar.n == self._bar.initial:
            self._bar.unpause()  # What came before the first piece says nothing of the others.
        self._bar.update(done - self._bar.n)

    def rename(self, name: str) -> None:
        self._name = name
        self._bar.set_description(name)

    def say(self, text: str) -> None:
        tqdm.write(f"{self._name}: {text}", file=self._stream)

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """A plain line for the first state and the last, and seldom between them."""

    def __init__(self, name: str, total: int, unit: str, stream: TextIO) -> None:
        self._name, self._total, self._unit, self._stream = name, total, unit, stream
        self._began = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, str] | None = None
        self._shown: tuple[int, float] | None = None

    def update(self, done: int, text: str) -> None:
        now = time.monotonic()
        self._first = self._first or (done, now)
        self._last = (done, text)
        if self._shown is None or done >= self._total or now - self._shown[1] >= EVERY_SECONDS:
            self._show(now)

    def rename(self, name: str) -> None:
        self._name = name

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # The reader has gone, the disk is full.
            print(f"{self._name}: {text}", file=self._stream, flush=True)

    def close(self) -> None:
        self._show(time.monotonic())

    def _show(self, now: float) -> None:
        if self._last is None or self._first is None or (self._shown and self._shown[0] == self._last[0]):
            return
        done, text = self._last
        self._shown = (done, now)
        first, began = self._first
        left = time_left(began, now, done - first, self._total - first)
        if done >= self._total:
            left = f", took {duration(round(now - self._began, 1))}"
        self.say(f"{self._amount(done)}{', ' if text else ''}{text}{left}")

    def _amount(self, done: int) -> str:
        if self._unit == _BYTES:
            return f"{done / 1e6:,.1f}/{self._total / 1e6:,.1f} MB"
        return f"{self._unit} {done:,}/{self._total:,}"


def _display_of(name: str, total: int, done: int, unit: str) -> _Bar | _Lines | None:
    """What suits the place that stderr is read at."""
    style: dict[str, Any] = {
        "desc": name,
        "total": total,
        "initial": done,
        "unit": unit,
        "unit_scale": unit == _BYTES,
        "smoothing": 0.1,
    }
    if is_notebook():
        if find_spec("ipywidgets") is None:
            return _Lines(name, total, unit, sys.stdout)
        from tqdm.notebook import tqdm as notebook_bar

        return _Bar(notebook_bar(**style), sys.stdout)
    if sys.stderr is None:  # A process without a console.
        return None
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return _Bar(tqdm(**style, **_shape(sys.stderr), file=sys.stderr), sys.stderr)
    return _Lines(name, total, unit, sys.stderr)


def _shape(stream: TextIO) -> dict[str, Any]:
    """How wide a bar may be: as the terminal says each time, or 80 where it has no size (some containers)."""
    try:
        has_size = all(os.get_terminal_size(stream.fileno()))
    except (OSError, ValueError):
        has_size = False
    return {"dynamic_ncols": True} if has_size else {"ncols": 80, "nrows": 24}


def is_notebook() -> bool:
    """Whether this is the process of a notebook: Jupyter's kernel, Colab's, or a like one."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


@contextlib.contextmanager
def heartbeat(say: Say, what: str, first: float = 2.0, every: float = 15.0) -> Iterator[None]:
    """Says what the body is doing once that has taken a while, and then for how long."""
    began, done = time.monotonic(), threading.Event()

    def beat() -> None:
        if done.wait(first):
            return
        say(what)
        while not done.wait(every):
            say(f"{what}: {duration(round(time.monotonic() - began))} so far")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def time_left(began: float, now: float, done: int, total: int) -> str:
    """Of `total` equal pieces begun at `began`; empty before the first is done."""
    if not done:
        return ""
    return f", about {duration((now - began) / done * (total - done))} left"


def duration(seconds: float) -> str:
    """A time in the unit that suits it, with three figures."""
    units = (("days", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3))
    for name, length in units:
        if seconds >= length * (2 if length > 1 else 1):
            return f"{_figures(seconds / length)} {name}"
    return f"{_figures(seconds * 1e6)} us" if seconds else "0 s"


def _figures(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"

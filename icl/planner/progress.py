"""Says how far things that take minutes are: a line every so often, with the time that is left."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

Say = Callable[[str], None]


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

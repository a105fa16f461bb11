"""A line on stderr where a process among several hosts ends without having said why.

JAX ends a process whose partner died from a thread that runs no Python, and the system may kill any process;
a shell beside it, that waits for its word or its end, can still speak then.
"""

import os
import subprocess
import sys
import traceback
from types import TracebackType

_UNFINISHED = (
    "error: this host ended before its work was done: it was killed, or another host stopped or never came"
    " (see above); start all hosts again, they go on from what is saved"
)
_prepared: list[subprocess.Popen[bytes]] = []


def prepare() -> None:
    """From now on a line tells of this process's end, unless `take_back` came first.

    An uncaught Python error is printed and ends the process at once: at its regular end JAX would wait for
    hosts that wait for this one.
    """
    script = f"trap '' TERM INT HUP; read -r line || echo '{_UNFINISHED}' >&2"
    _prepared.append(subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE))
    sys.excepthook = _leave_at_once


def take_back() -> None:
    """What ends this process next has been told, or is no error."""
    while _prepared:
        _prepared.pop().communicate(b"done\n")


def _leave_at_once(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    traceback.print_exception(kind, error, trace)
    sys.stdout.flush()
    os._exit(1)

"""SIGTERM: the loop saves and stops at a step that all hosts agree on."""

import signal
import threading
from types import FrameType
from typing import Any

import jax

from icl.parallel.hosts import stop_requested


class Termination:
    """Notes SIGTERM, so that the loop can save at the next step; a context manager.

    Where there are several hosts JAX notes it (`icl.parallel.hosts.join`), and tells all of them.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._before: Any = None
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._is_ours = in_main_thread and jax.process_count() == 1

    def __enter__(self) -> "Termination":
        if self._is_ours:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            signal.signal(signal.SIGTERM, self._before)

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`; asked once a step."""
        return stop_requested(step) if jax.process_count() > 1 else self._signalled

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._signalled = True

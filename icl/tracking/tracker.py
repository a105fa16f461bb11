"""What everything that shows a run takes: numbers, figures and sample prompts of a step.

Steps never fall. A tracker is told of them by one thread of the first host.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Sample(NamedTuple):
    """A prompt and what the model made of it; all but `title` is text of others.

    `title` says which prompt it is, in a few words of ours.
    """

    title: str
    prompt: str
    answer: str
    gold: str
    is_right: bool


class Tracker(Protocol):
    """Shows a run. Names have the group they belong to before the first slash."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Shows finite numbers by their names."""

    def figure(self, step: int, name: str, png: bytes) -> None:
        """Shows a figure, a PNG file."""

    def samples(self, step: int, name: str, samples: Sequence[Sample]) -> None:
        """Shows prompts with answers."""

    def sync(self) -> None:
        """Puts what was shown where a kill of this process cannot lose it, as far as that can be."""

    def close(self, *, failed: bool = False) -> None:
        """Ends the run's display; `failed` where an error ended the run."""


class Trackers:
    """Several as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        """There may be none."""
        self._trackers = tuple(trackers)

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As `Tracker`."""
        for tracker in self._trackers:
            tracker.scalars(step, values)

    def figure(self, step: int, name: str, png: bytes) -> None:
        """As `Tracker`."""
        for tracker in self._trackers:
            tracker.figure(step, name, png)

    def samples(self, step: int, name: str, samples: Sequence[Sample]) -> None:
        """As `Tracker`."""
        for tracker in self._trackers:
            tracker.samples(step, name, samples)

    def sync(self) -> None:
        """As `Tracker`."""
        for tracker in self._trackers:
            tracker.sync()

    def close(self, *, failed: bool = False) -> None:
        """As `Tracker`."""
        for tracker in self._trackers:
            tracker.close(failed=failed)

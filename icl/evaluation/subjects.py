"""The checkpoints of an evaluation: where they are, what they say of themselves, and short names for them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from icl.data.keys import digest
from icl.errors import InputError
from icl.evaluation.results import Source
from icl.training.checkpoints import FOLDER, find_checkpoint, read_description
from icl.training.description import Description


@dataclasses.dataclass(frozen=True)
class Subject:
    """A checkpoint to evaluate, named by the shortest part of its path that tells it from the others.

    `run` names the run that it is of, which is all of the label where every checkpoint is of another run.
    """

    label: str
    run: str
    folder: Path
    description: Description

    @property
    def source(self) -> Source:
        """The fields of results that name it."""
        d = self.description
        return Source(self.label, d.rung, d.step, d.params, d.train_seed)

    @property
    def checksum(self) -> str:
        """Names the model by its shape and the content of its parameters."""
        sums = self.description.checksums
        of_params = (f"{name} {sums[name]}" for name in sorted(sums) if name.startswith("params/"))
        return digest(str(self.description.model), *of_params)


def find_subjects(checkpoints: Sequence[str | Path], step: int | None = None) -> list[Subject]:
    """The checkpoints that paths name, each with a label of its own.

    Raises:
      InputError: there is none at a path, or two paths name the same.
    """
    found = [find_checkpoint(path, step) for path in checkpoints]
    if len(set(found)) < len(found):
        raise InputError(f"--checkpoint: {', '.join(map(str, checkpoints))}: expected each checkpoint once")
    runs = [(folder.parent if folder.name == FOLDER else folder).absolute() for folder, _ in found]
    labels = _labels(runs)
    names = labels
    if len(set(labels)) < len(labels):
        labels = [f"{label}@{number}" for label, (_, number) in zip(labels, found, strict=True)]
    return [
        Subject(label, name, folder, read_description(folder, number))
        for label, name, (folder, number) in zip(labels, names, found, strict=True)
    ]


def _labels(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell different ones apart."""
    longest = max(len(run.parts) for run in runs)
    candidates = (["/".join(run.parts[-length:]) for run in runs] for length in range(1, longest))
    return next((labels for labels in candidates if len(set(labels)) == len(set(runs))), list(map(str, runs)))

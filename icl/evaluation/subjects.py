"""The checkpoints of an evaluation: where they are, what they say of themselves, and short names for them."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from icl.data.keys import digest
from icl.errors import InputError
from icl.evaluation.results import Source
from icl.interop.huggingface import is_folder_path, open_folder
from icl.training.checkpoints import FOLDER, find_checkpoint, read_description, restore_params
from icl.training.description import Description


@dataclasses.dataclass(frozen=True)
class Subject:
    """A checkpoint to evaluate, named by the shortest part of its path that tells it from the others.

    `run` names the run that it is of, which is all of the label where every checkpoint is of another run.
    `restore` reads its parameters, given a tree of shardings or None for the first device.
    """

    label: str
    run: str
    folder: Path
    description: Description
    restore: Callable[[Any], Any]

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


@dataclasses.dataclass(frozen=True)
class _Found:
    """A checkpoint at a path: folder and step that name it, and what it says of itself."""

    folder: Path
    step: int
    description: Description
    restore: Callable[[Any], Any]

    @property
    def run(self) -> Path:
        """The folder that a reader knows it by."""
        return (self.folder.parent if self.folder.name == FOLDER else self.folder).absolute()


def find_subjects(checkpoints: Sequence[str | Path], step: int | None = None) -> list[Subject]:
    """The checkpoints that paths name, each with a label of its own; `hf:DIR` is a Hugging Face folder.

    Raises:
      InputError: there is none at a path, or two paths name the same.
    """
    found = [_find(path, step) for path in checkpoints]
    places = {(each.folder.absolute(), each.step) for each in found}
    if len(places) < len(found):
        raise InputError(f"--checkpoint: {', '.join(map(str, checkpoints))}: expected each checkpoint once")
    labels = _labels([each.run for each in found])
    names = labels
    if len(set(labels)) < len(labels):
        labels = [f"{label}@{each.step}" for label, each in zip(labels, found, strict=True)]
    return [
        Subject(label, name, each.folder, each.description, each.restore)
        for label, name, each in zip(labels, names, found, strict=True)
    ]


def _find(path: str | Path, step: int | None) -> _Found:
    if is_folder_path(path):
        public = open_folder(path)
        return _Found(public.path, 0, public.description(), public.restore)
    folder, number = find_checkpoint(path, step)
    description = read_description(folder, number)
    return _Found(folder, number, description, lambda shardings: restore_params(folder, number, shardings)[0])


def _labels(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell different ones apart."""
    longest = max(len(run.parts) for run in runs)
    candidates = (["/".join(run.parts[-length:]) for run in runs] for length in range(1, longest))
    return next((labels for labels in candidates if len(set(labels)) == len(set(runs))), list(map(str, runs)))

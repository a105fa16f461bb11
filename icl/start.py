"""Finds the checkpoint that a run starts from: one of ours, or a public one in a Hugging Face folder."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icl.errors import InputError
from icl.evaluation.subjects import find_subjects
from icl.model.config import ModelConfig
from icl.training.fine_tuning import Start
from icl.training.workdir import check_model


def find_start(path: str) -> Start:
    """The checkpoint that a path names; its parameters are not read yet.

    Args:
      path: A run's folder (its newest step), DIR@STEP, DIR/checkpoints/STEP, or hf:DIR.

    Raises:
      InputError: there is none, or it is damaged.
    """
    named = re.fullmatch(r"(.+)@(\d+)", path)
    step = None
    if named and not Path(path).exists() and not path.startswith("hf:"):
        path, step = named[1], int(named[2])
    try:
        (found,) = find_subjects([path], step)
    except InputError as error:
        raise InputError(f"FineTuneConfig.checkpoint: {error}") from None
    return Start(found.folder, found.description.step, found.description, found.restore)


def started_model(start: Start, bound: Mapping[str, Any]) -> ModelConfig:
    """The model of a run that starts from a checkpoint: the checkpoint's, computed as settings say.

    Args:
      start: The checkpoint.
      bound: Fields of `ModelConfig` that settings give.

    Raises:
      InputError: one of them contradicts the checkpoint.
    """
    saved = start.description.model
    said = {name: value for name, value in bound.items() if (name, value) != ("vocab_size", 0)}
    wanted = dataclasses.replace(saved, **said)
    check_model(saved, wanted, f"checkpoint {start.folder}, which the run starts from")
    return wanted

"""The loss of a trained model on text that it has not seen, from the same stream as its training text.

Rows are addressed by index and an epoch holds every token once, so the rows after a run's last one are
unseen text like the seen one, and all runs can be measured on the same rows.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icl.data.batch import Batch, empty_row
from icl.data.config import DataConfig
from icl.data.loader import stack
from icl.data.rows import Rows
from icl.data.tokenizer import tokenizer_from_json
from icl.errors import InputError
from icl.model.config import ModelConfig
from icl.training.checkpoints import restore_params
from icl.training.description import Description
from icl.training.setup import Setup
from icl.training.step import score

_ROWS = 32
"""Read at once."""


def rows_after(setup: Setup, row: int, number: int) -> range:
    """Rows of a run's stream from one that it does not reach on, all of them text that comes once.

    Raises:
      InputError: the run reaches the first of them, or the text is too short.
    """
    seen = setup.run.ramp.first_row(setup.run.train.steps)
    if row < seen:
        raise InputError(f"row {row:,}: the run reads {seen:,} rows; expected a row from there on")
    rows = range(row, row + number)
    for name, usage in setup.rows.usage(rows.stop).items():
        if usage.size is not None and usage.used > usage.size:
            raise InputError(
                f"DataConfig.corpora {name!r}: has {usage.size:,} tokens; the longest run and the rows that"
                f" all are measured on need {usage.used:,.0f}"
            )
    return rows


class TextLoss(NamedTuple):
    """Nats per token: the mean, its standard error over rows, and the number of tokens."""

    loss: float
    standard_error: float
    tokens: int


def text_loss(workdir: str | Path, rows: range) -> TextLoss:
    """The loss of a run's newest checkpoint on rows of its training stream that it has not reached.

    Args:
      workdir: Folder of a run on text alone; its text is read again, from the paths in its settings.
      rows: Numbers of the rows; the run must not have reached the first, and the last lie in the first epoch.

    Raises:
      InputError: the run saw some of the rows, or they repeat text; the run trains on tasks too, or its text
        has changed since.
    """
    params, description = restore_params(workdir)
    stream = _stream(Path(workdir), description)
    _check_unseen(Path(workdir), description, stream, rows)
    padding = empty_row(int(description.data["row_length"]), 0)
    loss_B, weight_B = [], []
    for start in range(rows.start, rows.stop, _ROWS):
        batch = [stream[row] for row in range(start, min(start + _ROWS, rows.stop))]
        sums = _sums(description.model, params, stack(batch + [padding] * (_ROWS - len(batch))))
        loss_B += np.asarray(sums[0])[: len(batch)].tolist()
        weight_B += np.asarray(sums[1])[: len(batch)].tolist()
    losses, weights = np.array(loss_B), np.array(weight_B)
    mean = losses.sum() / weights.sum()
    error = (
        np.sqrt(np.sum((losses - mean * weights) ** 2) / max(len(losses) - 1, 1) * len(losses))
        / weights.sum()
    )
    return TextLoss(float(mean), float(error), int(weights.sum()))


@functools.partial(jax.jit, static_argnums=0)
def _sums(config: ModelConfig, params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Of each row the summed loss and the number of tokens."""
    weights_BT = jnp.asarray(batch.weights_BT)
    loss_BT = score(config, params, batch).cross_entropy_BT * weights_BT
    return jnp.sum(loss_BT, axis=1), jnp.sum(weights_BT, axis=1)


def _stream(workdir: Path, description: Description) -> Rows:
    """The training rows of a run."""
    if description.tasks:
        raise InputError(
            f"{workdir}: trains on tasks too ({', '.join(description.tasks)}); expected text alone"
        )
    settings = dict(description.data)
    settings["curriculum"] = {int(tokens): weights for tokens, weights in settings["curriculum"].items()}
    stream = Rows(DataConfig(**settings), {}, tokenizer_from_json(description.tokenizer))
    if stream.fingerprint != description.data_fingerprint:
        raise InputError(f"{workdir}: its text has changed since it was trained on; expected the same files")
    return stream


def _check_unseen(workdir: Path, description: Description, stream: Rows, rows: range) -> None:
    if not rows or rows.step != 1:
        raise InputError(f"rows {rows}: expected one or more consecutive ones")
    seen = -(-description.tokens // int(description.data["row_length"]))
    if rows.start < seen:
        raise InputError(
            f"{workdir}: was trained on {seen:,} rows; expected rows from there on, not {rows.start:,}"
        )
    for name, usage in stream.usage(rows.stop).items():
        if usage.repeats is not None and usage.repeats > 1:
            raise InputError(
                f"{workdir}: up to row {rows.stop:,} the text {name!r} comes {usage.repeats:.4g} times;"
                " expected rows of text that comes once"
            )

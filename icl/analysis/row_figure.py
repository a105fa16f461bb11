"""A training row, drawn: its segments, its answers, and what each answer's tokens cost the model.

After Fig. 1.1 of the GPT-3 paper, which draws a sequence as sub-tasks that repeat within it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from icl.data.batch import NO_EXAMPLE, NO_SEGMENT, Batch
from icl.data.tokenizer import Tokenizer
from icl.figure_style import FAINT, GRID, INK, VARIANTS

_SIGNS = str.maketrans({"\n": "\u21b5", " ": "\u2423", "\t": "\u21e5"})
_TEXT, _STRIP, _GAP = 1.3, 0.42, 0.55
_SHADES = VARIANTS[1:]


class Cell(NamedTuple):
    """A token of a row as it is drawn.

    Attributes:
      text: What is written, whitespace as signs; a token that has no text as a dot.
      line: Which line it stands on.
      left: Its first column there.
      position: Its place in the row: the position at which it is predicted.
      opens: Whether it is the first of its segment.
    """

    text: str
    line: int
    left: int
    position: int
    opens: bool


def cells(row: Batch, tokenizer: Tokenizer, width: int) -> Iterator[Cell]:
    """The tokens that a row predicts, laid out in lines of at most `width` columns (longer tokens fill one).

    Args:
      row: One row, arrays [length].
      tokenizer: Of its tokens.
      width: Columns of a line.
    """
    targets_T, segments_T = np.asarray(row.targets_BT), np.asarray(row.segments_BT)
    line = left = 0
    before = NO_SEGMENT
    for position in np.flatnonzero(segments_T != NO_SEGMENT).tolist():
        content = tokenizer.token_bytes(int(targets_T[position])).decode(errors="replace")
        text = content.translate(_SIGNS) or "\u00b7"
        if left and left + len(text) > width:
            line, left = line + 1, 0
        yield Cell(text, line, left, position, bool(segments_T[position] != before))
        left += len(text)
        before = int(segments_T[position])


def draw_row(
    axes: Axes,
    row: Batch,
    tokenizer: Tokenizer,
    components: Sequence[str],
    losses: Mapping[str, ArrayLike],
    *,
    width: int = 62,
    most: float = 4.0,
) -> ScalarMappable:
    """Draws a row as text, segments in the tint of their task, and under it a strip of losses for each model.

    Args:
      axes: Where to; its axes are taken away.
      row: One row, arrays [length].
      tokenizer: Of its tokens.
      components: What the row's tasks number, as `Rows.components`.
      losses: By the name of a strip, the loss of each position in nats [length]; shown for answers only.
      width: Columns of a line.
      most: The loss that the darkest colour stands for.

    Returns:
      The colours of the losses, for a colour bar.
    """
    examples_T, tasks_T = np.asarray(row.examples_BT), np.asarray(row.tasks_BT)
    colors = ScalarMappable(Normalize(0, most), matplotlib.colormaps["magma_r"])
    pitch = _TEXT + _STRIP * len(losses) + _GAP
    laid = list(cells(row, tokenizer, width))
    shown = list(dict.fromkeys(tasks_T[cell.position] for cell in laid))
    shades = {task: _SHADES[i % len(_SHADES)] for i, task in enumerate(shown)}
    loss_XT = [np.asarray(loss_T) for loss_T in losses.values()]
    for text, line, left, position, opens in laid:
        top, is_answer = line * pitch, examples_T[position] != NO_EXAMPLE
        color = shades[tasks_T[position]]
        tint = to_rgba(color, 0.42 if is_answer else 0.14)
        axes.add_patch(Rectangle((left, top), len(text), _TEXT, facecolor=tint, linewidth=0))
        axes.text(
            left + len(text) / 2,
            top + _TEXT / 2,
            text,
            family="monospace",
            fontsize=7.5,
            weight="bold" if is_answer else "normal",
            color=INK if text.isprintable() and text not in _SIGNS.values() else FAINT,
            ha="center",
            va="center",
        )
        if opens:
            axes.plot([left, left], [top - 0.1, top + _TEXT + 0.1], color=color, linewidth=2.2)
            label = f" {components[tasks_T[position]]}"
            axes.text(left, top - 0.12, label, fontsize=6.5, color=color, va="bottom", weight="bold")
        for i, loss_T in enumerate(loss_XT):
            face = colors.to_rgba(loss_T[[position]])[0] if is_answer else GRID
            at = (left, top + _TEXT + i * _STRIP)
            axes.add_patch(Rectangle(at, len(text), 0.86 * _STRIP, facecolor=face, linewidth=0))
    for line in range(laid[-1].line + 1):
        for i, name in enumerate(losses):
            middle = line * pitch + _TEXT + (i + 0.5) * _STRIP
            axes.text(-0.4, middle, name, fontsize=5.8, color=FAINT, ha="right", va="center")
    axes.set(xlim=(0, width), ylim=((laid[-1].line + 1) * pitch, -1.0))
    axes.axis("off")
    return colors

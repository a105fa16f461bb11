"""How the lines of models look in figures: colours by size, markers."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib

from icl.evaluation.curves import checkpoints
from icl.evaluation.records import Result

MARKERS = {
    "o": "<circle cx='18' cy='6' r='4'/>",
    "s": "<rect x='14' y='2' width='8' height='8'/>",
    "D": "<path d='M18 1l5 5-5 5-5-5z'/>",
    "^": "<path d='M18 1l5 9h-10z'/>",
    "v": "<path d='M18 11l5-9h-10z'/>",
}
"""Markers of matplotlib, and as they stand in the legend of the report."""


class Style(NamedTuple):
    """How the line of a model is drawn."""

    color: str
    marker: str


def styles(results: Sequence[Result]) -> dict[str, Style]:
    """Colours by the number of parameters, light for few and dark for many; a marker for every model."""
    found = {name: row.params or 0 for name, row in checkpoints(results).items()}
    sizes = sorted(set(found.values()))
    shades = [0.72 - 0.6 * i / max(len(sizes) - 1, 1) for i in range(len(sizes))]
    colors = [matplotlib.colors.to_hex(matplotlib.colormaps["magma"](shade)) for shade in shades]
    return {
        name: Style(colors[sizes.index(size)], marker)
        for (name, size), marker in zip(found.items(), itertools.cycle(MARKERS), strict=False)
    }

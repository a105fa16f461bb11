"""Figures that a notebook shows: what stands in which panel, and that they look as those in the report."""

import dataclasses

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from icl.errors import InputError
from icl.evaluation.baselines import CEILING, CHANCE, RULES, TRAINING_MAJORITY
from icl.evaluation.figures import k_curve_figure, lines
from icl.evaluation.variant_figures import condition_figure
from icl.figure_style import INK
from tests.evaluation.test_report import result, results


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def drawn(figure: Figure, panel: int) -> list[list[float]]:
    """Values of the curves of models, which have markers."""
    curves = figure.axes[panel].lines
    return [np.asarray(line.get_ydata()).tolist() for line in curves if line.get_marker() in ("o", "s")]


def test_the_curves_of_the_tasks_asked_for_stand_in_panels() -> None:
    rows = results("cipher", last=0.9) + [
        dataclasses.replace(row, instruction=True, value=row.value / 2) for row in results("cipher", last=0.8)
    ]
    figure = k_curve_figure(rows, ["cipher"])
    assert titles(figure) == ["cipher, without instruction", "cipher, with instruction"]
    assert drawn(figure, 0) == [[10, 90]] * 2 and drawn(figure, 1) == [[5, 40]] * 2
    figure = k_curve_figure(rows, ["cipher", "mean"], instruction=[True])
    assert titles(figure) == ["cipher, with instruction", "mean over tasks, with instruction"]
    assert len({axes.get_position().y0 for axes in figure.axes}) == 1  # one row


def test_every_baseline_has_dashes_of_its_own() -> None:
    names = {*RULES, CEILING, TRAINING_MAJORITY, CHANCE}
    rows = [result("baseline", "cipher", 0, 0.1, params=None, scoring=name) for name in sorted(names)]
    assert len(set(lines(rows).dashes.values())) == len(names) == 6


def test_a_task_without_results_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"no results of task 'cypher'; there are \['cipher', 'mean'\]"):
        k_curve_figure(results("cipher"), ["cypher"])


def test_a_figure_has_the_look_of_the_report_when_a_notebook_draws_it() -> None:
    figure = k_curve_figure(results())
    with matplotlib.rc_context({"xtick.color": "red", "ytick.color": "red"}):
        figure.canvas.draw()
        labels = [
            label for axes in figure.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels())
        ]
    assert labels and {label.get_color() for label in labels} == {INK}


def test_conditions_are_curves_of_one_panel_and_one_condition_is_no_figure() -> None:
    rows = [result("large", "cipher", k, v) for k, v in ((0, 0.1), (4, 0.9))]
    assert condition_figure(rows, "cipher", False, "large") is None
    rows += [dataclasses.replace(row, condition="flipped_labels", value=0.1) for row in rows]
    figure = condition_figure(rows, "cipher", False, "large")
    assert figure is not None and len(figure.axes) == 1
    assert drawn(figure, 0) == [[10, 90], [10, 10]]

"""The part of the report that sets our scores beside Table H.1 of the GPT-3 paper, in figures and numbers."""

from collections.abc import Mapping, Sequence
from html import escape

from icl.evaluation.curves import by_task, curves, metric_name, models, wording_name, wordings
from icl.evaluation.published import (
    SETTINGS,
    SMALLEST,
    Published,
    accuracy_rows,
    mean_score,
    published,
)
from icl.evaluation.records import Result
from icl.evaluation.report_html import INSTRUCTION, said, score, table
from icl.evaluation.results import MEAN
from icl.evaluation.size_figures import BySize, has_metric, metric_of, size_panel_svg
from icl.training.description import Description

SIZES = ("125M", "350M", "1.3B", "13B", "175B")


def by_size_section(panels: Sequence[BySize], provenance: Mapping[str, Description]) -> str:
    """Our means at zero, one and few demonstrations against size, before the published ones."""
    if not panels:
        return ""
    figures = "".join(
        f"<figure class='card'><h3>{escape(one.title)}</h3><div role='img' aria-label='{_said(one)}'>"
        f"{size_panel_svg(one)}</div>{_footnote(one, provenance)}</figure>"
        for one in panels
    )
    return (
        "<section id='by-size'><h2>Score against size</h2><p class='lead'>Mean over tasks with no, one and "
        "the "
        "most demonstrations of each task. Every point is one training run; a line joins the means of the "
        "runs "
        "of each size. Vertical lines are 95 % intervals from those of the tasks, taken as independent.</p>"
        f"<div class='panels'>{figures}</div></section>"
    )


def _said(one: BySize) -> str:
    said = (f"{p.checkpoint} {setting}-shot {p.value:.0f}" for setting, ps in one.ours.items() for p in ps)
    return escape("; ".join(said))


def _footnote(one: BySize, provenance: Mapping[str, Description]) -> str:
    """Which tasks the published curve is of, which points not to trust, and which of ours were trained so."""
    if not one.published:
        return ""
    names = ", ".join(row.name for row in one.published)
    text = f"Dashed: GPT-3 on the same tasks ({names}; arXiv 2005.14165, Table H.1)."
    if one.suspect:
        text += (
            f" Hollow: in {one.suspect} of these {len(one.published)} rows the {SMALLEST} few-shot score "
            "repeats "
            "the one-shot score, so do not take it for a measurement."
        )
    text += " GPT-3 met such tasks only by chance in its training text."
    return f"<figcaption>{escape(text)} {escape(_trained_on(one.tasks, provenance))}</figcaption>"


def _trained_on(tasks: Sequence[str], provenance: Mapping[str, Description]) -> str:
    """Which checkpoints were trained on other examples of the tasks."""
    counts = {label: sum(map(d.was_trained_on, tasks)) for label, d in provenance.items()}
    trained = [
        label if number == len(tasks) else f"{label} (on {number} of {len(tasks)})"
        for label, number in counts.items()
        if number
    ]
    text = f"Trained on other examples of these tasks: {', '.join(trained) or 'none of ours'}."
    imported = ", ".join(label for label, d in provenance.items() if d.is_imported)
    return f"{text} What {imported} met in training is not known here." if imported else text


def published_section(results: Sequence[Result], provenance: Mapping[str, Description]) -> str:
    """Our scores beside the published ones, metric by metric; nothing where there is no such task."""
    found = {
        task: [row for row in published(task) if has_metric(rows, row)]
        for task, rows in by_task(results).items()
        if task != MEAN
    }
    found = {task: rows for task, rows in found.items() if rows}
    if not found:
        return ""
    head = ["score", INSTRUCTION, "K = 0", "K = 1", "most K"]
    head += [f"{size}<br>{setting}" for size in SIZES for setting in SETTINGS]
    by_name = by_task(results)
    lines = []
    for task, rows in found.items():
        for row in rows:
            lines += _lines(by_name[task], task, row, provenance)
    whole = accuracy_rows()
    cells = _cells(whole)
    lines.append(
        [f"the paper's Figure 1.3<br><small>mean of its {len(whole)} scores</small>", *[""] * 4, *cells]
    )
    return (
        "<section id='published'><h2>Beside the published scores</h2><p class='lead'>Table H.1 of Language "
        "Models "
        "are Few-Shot Learners (arXiv 2005.14165). This is not the setting of those models: they met such "
        "tasks "
        "only by chance in their training text. A model marked <em>trained on the task family</em> was "
        "trained "
        f"on other examples of the same task.</p><div class='card'>{table(head, lines)}"
        f"{_notes([row for rows in found.values() for row in rows])}</div></section>"
    )


def _lines(
    rows: Sequence[Result], task: str, row: Published, provenance: Mapping[str, Description]
) -> list[list[str]]:
    metric = metric_of(rows, row)
    lines = []
    for instruction in wordings(rows):
        for curve in models(curves(rows, task, instruction, metric=metric)):
            few = curve.last if curve.last.k > 1 else None
            label = _trained(provenance.get(curve.name), task)
            name = (
                f"{escape(task)}<br><small>{escape(metric_name(metric))}; {escape(curve.name)}{label}<br>"
                f"table: {escape(row.name)}, {escape(row.metric)} on {escape(row.split)}, few is K = "
                f"{row.k}</small>"
            )
            last = f"{score(few)}<br><small>K = {few.k}</small>" if few else ""
            ours = [score(curve.points.get(0)), score(curve.points.get(1)), last]
            lines.append([name, said(instruction), *ours, *_cells([row])])
    return lines


def _cells(rows: Sequence[Published]) -> list[str]:
    """Their mean; a dagger where one of them is not to be trusted."""
    digits = 2 if rows[0].metric == "ppl" else 1
    return [
        f"{mean_score(rows, setting, size):.{digits}f}"
        + ("†" if setting == "few" and size == SMALLEST and any(row.is_suspect for row in rows) else "")
        for size in SIZES
        for setting in SETTINGS
    ]


def _notes(rows: Sequence[Published]) -> str:
    notes = [
        f"† The {SMALLEST} few-shot score repeats the one-shot score in 27 of the table's 63 rows, "
        f"{SMALLEST} being "
        "the only size with so many: it is hardly a measurement.",
        *dict.fromkeys(f"{row.name}: {row.note}." for row in rows if row.note),
    ]
    return "".join(f"<p class='note'>{escape(note)}</p>" for note in notes)


def _trained(description: Description | None, task: str) -> str:
    if description is None:
        return ""
    if description.is_imported:
        return ", what it was trained on not known"
    return f", {'' if description.was_trained_on(task) else 'not '}trained on the task family"


def task_size_figure(one: BySize, instruction: bool, provenance: Mapping[str, Description]) -> str:
    """A task's scores against size, for its page."""
    return (
        f"<figure><h4>Against size, {wording_name(instruction)}</h4>"
        f"<div role='img' aria-label='{_said(one)}'>{size_panel_svg(one)}</div>"
        f"{_footnote(one, provenance)}</figure>"
    )

"""The pages of single tasks in the report: curves, tables of every metric, prompts, files of records."""

from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

from icl.evaluation.curves import (
    Curve,
    checkpoints,
    condition_name,
    conditions,
    curves,
    main_metric,
    main_template,
    metric_name,
    models,
    shown_ks,
    templates,
    wording_name,
    wordings,
)
from icl.evaluation.figures import Lines, panel_svg
from icl.evaluation.records import Record, Result
from icl.evaluation.report_html import INSTRUCTION, folded, k_heads, said, score, score_table, scores, table
from icl.evaluation.report_published import task_size_figure
from icl.evaluation.report_samples import samples_html
from icl.evaluation.results import BASELINE, CONDITION, MEAN
from icl.evaluation.size_figures import task_size_panel
from icl.evaluation.variant_figures import condition_svg, shown_checkpoints, template_svg
from icl.training.description import Description

RecordFiles = Mapping[tuple[str, str], Sequence[str]]


def task_page(
    number: int,
    rows: Sequence[Result],
    looks: Lines,
    samples: Sequence[Record],
    provenance: Mapping[str, Description],
    files: RecordFiles,
) -> str:
    """Everything about one task; `rows` and `samples` are the task's."""
    task = rows[0].task
    metric = main_metric(rows, task)
    figures = "".join(panel(rows, looks, task, instruction) for instruction in wordings(rows))
    for instruction in wordings(rows):
        one = task_size_panel(rows, task, instruction)
        figures += task_size_figure(one, instruction, provenance) if one else ""
    parts = [
        f"<div class='panels'>{figures}</div>",
        score_table(rows, task, metric),
        variants(rows, task),
        folded(f"Every metric and scoring of {task}", _every_metric(rows)),
        f"<h4>Prompts and answers</h4>{samples_html(samples)}",
        _files(task, rows, files),
    ]
    return f"<section class='task card' id='task-{number}'><h3>{escape(task)}</h3>{''.join(parts)}</section>"


def panel(rows: Sequence[Result], looks: Lines, task: str, instruction: bool) -> str:
    """The K-curves of a task, or of the mean, under one wording; nothing where there are none."""
    metric = main_metric(rows, task)
    found = models(curves(rows, task, instruction, metric=metric))
    if not found:
        return ""
    label = "; ".join(f"{curve.name} {100 * curve.last.value:.0f} % at K = {curve.last.k}" for curve in found)
    name = "Mean over tasks" if task == MEAN else task
    return (
        f"<figure><h4>{escape(f'{name}, {wording_name(instruction)}')}</h4>"
        "<div role='img' "
        f"aria-label='{escape(label)}'>{panel_svg(rows, looks, task, instruction)}</div></figure>"
    )


def variants(rows: Sequence[Result], task: str) -> str:
    """Figures and a table of the conditions and of the formats, where there are several."""
    parts = []
    for title, note, draw, table_of, several in (
        (
            "Labels of the demonstrations",
            _CONDITIONS,
            condition_svg,
            _condition_table,
            len(conditions(rows)) > 1,
        ),
        ("Formats of the prompt", _TEMPLATES, template_svg, _template_table, len(templates(rows)) > 1),
    ):
        if several:
            figures = "".join(
                f"<figure><h4>{escape(name)}, {wording_name(instruction)}</h4>{svg}</figure>"
                for name in shown_checkpoints(rows)
                for instruction in wordings(rows)
                if (svg := draw(rows, task, instruction, name))
            )
            parts.append(
                f"<h4>{title}</h4><p class='note'>{note}</p><div class='panels'>{figures}</div>"
                f"{folded(f'{title} in numbers', table_of(rows, task))}"
            )
    return "".join(parts)


_CONDITIONS = (
    "Gold against labels that are drawn at random, exchanged, or replaced by words without meaning. A score "
    "that "
    "stays shows what the demonstrations tell beside their labels; bands are pointwise 95 % intervals."
)
_TEMPLATES = (
    "Thin lines are single formats; the line is their median, the band reaches from the worst to the best."
)


def _condition_table(rows: Sequence[Result], task: str) -> str:
    metric, ks = main_metric(rows, task), shown_ks(rows)
    lines = [
        [
            escape(curve.name),
            said(instruction),
            escape(condition_name(condition)),
            *scores(curve, ks),
        ]
        for instruction in wordings(rows)
        for condition in conditions(rows)
        for curve in models(curves(rows, task, instruction, metric=metric, condition=condition))
    ]
    return table([metric_name(metric), INSTRUCTION, "labels", *k_heads(ks)], lines)


def _template_table(rows: Sequence[Result], task: str) -> str:
    metric, ks = main_metric(rows, task), shown_ks(rows)
    lines = []
    for instruction in wordings(rows):
        for template in templates(rows):
            for curve in models(curves(rows, task, instruction, metric=metric, template=template)):
                start = [escape(curve.name), said(instruction), escape(template)]
                lines.append([*start, *(_with_spread(curve.points.get(k)) for k in ks)])
    return table([metric_name(metric), INSTRUCTION, "format", *k_heads(ks)], lines)


def _with_spread(row: Result | None) -> str:
    if row is None or not row.template_values:
        return score(row)
    low, high = (f"{100 * end(row.template_values):.1f}" for end in (min, max))
    return f"{score(row)}<br><small>formats {low}–{high}</small>"


def _every_metric(rows: Sequence[Result]) -> str:
    """A row for every metric, way to score, wording and source: the task's results with gold labels."""
    ks, template = shown_ks(rows), main_template(rows)
    found: dict[tuple[str, str, bool, str, str], dict[int, Result]] = {}
    for row in rows:
        if row.condition == CONDITION and (row.checkpoint == BASELINE or row.template == template):
            key = (row.metric, row.scoring, row.instruction, row.checkpoint, row.slice)
            found.setdefault(key, {})[row.k] = row
    order = list(dict.fromkeys(key[0] for key in found))
    lines = []
    for key, points in sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1:])):
        metric, scoring, instruction, checkpoint, part = key
        kind = "" if part == "all" else f"<br><small>{escape(part.replace('_', ' '))}</small>"
        start = [f"{escape(metric_name(metric))}{kind}", escape(scoring), escape(checkpoint)]
        lines.append([*start, said(instruction), *scores(Curve(points), ks)])
    return table(["metric", "scoring", "checkpoint", INSTRUCTION, *k_heads(ks)], lines)


def _files(task: str, rows: Sequence[Result], files: RecordFiles) -> str:
    """Links to the files that hold the records of the task, and how to come from a number to its records."""
    lines = []
    for name in checkpoints(rows):
        links = ", ".join(
            f"<a href='./{escape(quote(path))}'>{escape(path)}</a>" for path in files.get((name, task), ())
        )
        if links:
            lines.append(f"<li>{escape(name)}: {links}</li>")
    listed = f"<ul>{''.join(lines)}</ul>" if lines else ""
    return (
        "<details class='files'><summary>The records behind these numbers</summary><p class='note'>A number "
        "is the "
        "mean, or the corpus metric, over the records that have its checkpoint, task, k, instruction, "
        "condition and "
        "template; each line is one record, and prompt_sha256 names its prompt."
        f"{'' if lines else ' They are in records/.'}</p>{listed}</details>"
    )

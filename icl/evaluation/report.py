"""The report: one HTML file that needs nothing else, with curves, tables, whole prompts and provenance.

Whatever tasks, prompts, models or paths say is escaped: it is text of others. Links lead to the records
beside it and nowhere else.
"""

import dataclasses
import string
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from icl.evaluation.config import EvalConfig
from icl.evaluation.curves import (
    by_task,
    curves,
    models,
    shown_ks,
    task_names,
    wordings,
)
from icl.evaluation.figures import Lines, legend_svg, lines, write_figures
from icl.evaluation.findings import findings
from icl.evaluation.records import Record, Result, write_file
from icl.evaluation.report_differences import Difference, differences_section
from icl.evaluation.report_html import INSTRUCTION, count, folded, k_heads, said, score_table, table
from icl.evaluation.report_published import by_size_section, published_section
from icl.evaluation.report_tasks import RecordFiles, panel, task_page, variants
from icl.evaluation.results import MEAN
from icl.evaluation.size_figures import size_panels, write_by_size
from icl.training.description import Description

TEMPLATE_FILE = "report_template.html"

_INTERVALS = {
    "per_query": "Demonstrations are drawn anew for every query, so seeds are nested in queries: a query's "
    "score is its mean over seeds, and the clusters of queries are what varies.",
    "fixed": "One set of demonstrations a seed serves all queries of a task instance; where a task has one "
    "instance, seeds and queries are crossed random effects (two-way analysis of variance, Satterthwaite).",
}


def write_report(
    path: Path,
    results: Sequence[Result],
    samples: Sequence[Record],
    provenance: Mapping[str, Description],
    config: EvalConfig,
    *,
    differences: Sequence[Difference] = (),
    record_files: RecordFiles | None = None,
) -> None:
    """Writes the report, and its figures as PNG beside it.

    Args:
      path: The HTML file.
      results: All results of the evaluation.
      samples: Records that hold their prompts, to be shown whole.
      provenance: What every checkpoint says of itself, by label.
      config: What was asked.
      differences: What comparisons of runs and conditions found.
      record_files: Paths of files of records, from the report's folder, by checkpoint and task.
    """
    template = string.Template(resources.files(__package__).joinpath(TEMPLATE_FILE).read_text("utf-8"))
    looks, panels = lines(results), size_panels(results)
    parts = {
        "title": "In-context learning: score against demonstrations",
        "subtitle": escape(_subtitle(results, provenance, config)),
        "findings": "\n".join(f"<li>{escape(sentence)}</li>" for sentence in findings(results)),
        "legend": _legend(results, looks),
        "mean": _mean(by_task(results).get(MEAN, []), looks),
        "by_size": by_size_section(panels, provenance),
        "published": published_section(results, provenance),
        "differences": differences_section(differences),
        "task_links": "".join(
            f"<li><a href='#task-{number}'>{escape(task)}</a></li>"
            for number, task in enumerate(task_names(results), start=1)
        ),
        "tasks": _tasks(results, looks, samples, provenance, record_files or {}),
        "method": f"<p>{escape(_method(config))}</p>",
        "excluded": _excluded(provenance),
        "provenance": _provenance(provenance, config),
    }
    write_file(path, template.substitute(parts).encode("utf-8", "replace"))
    write_figures(path.parent, results)
    write_by_size(path.parent, panels)


def _subtitle(results: Sequence[Result], provenance: Mapping[str, Description], config: EvalConfig) -> str:
    tasks = by_task(results)
    tasks.pop(MEAN, None)
    queries = sum(max(row.n for row in rows) for rows in tasks.values())
    seeds = max(row.seeds for row in results)
    kind = "held-out" if config.split == "held_out" else "training"
    return (
        f"{count(len(provenance), 'checkpoint')} ({', '.join(provenance)}), {count(len(tasks), 'task')} "
        f"({', '.join(tasks)}); {queries:,} {kind} queries, {count(seeds, 'demonstration seed')}, K = "
        f"{', '.join(map(str, shown_ks(results)))}."
    )


def _mean(rows: Sequence[Result], looks: Lines) -> str:
    """The mean over tasks; tasks without a number of demonstrations in common have none."""
    if not rows:
        return (
            "<p class='note'>The tasks have no number of demonstrations in common, so there is no mean.</p>"
        )
    figures = "".join(
        f"<div class='card'>{panel(rows, looks, MEAN, instruction)}</div>" for instruction in wordings(rows)
    )
    return (
        f"<div class='panels'>{figures}</div><div "
        f"class='card'>{score_table(rows, MEAN)}{variants(rows, MEAN)}"
        f"{_seed_table(rows)}</div>"
    )


def _tasks(
    results: Sequence[Result],
    looks: Lines,
    samples: Sequence[Record],
    provenance: Mapping[str, Description],
    record_files: RecordFiles,
) -> str:
    shown: dict[str, list[Record]] = {}
    for record in samples:
        shown.setdefault(record.task, []).append(record)
    found = by_task(results)
    return "\n".join(
        task_page(number, found[task], looks, shown.get(task, []), provenance, record_files)
        for number, task in enumerate(task_names(results), start=1)
    )


def _legend(results: Sequence[Result], looks: Lines) -> str:
    items = (f"<li>{svg}{escape(name)}</li>" for name, svg in legend_svg(results, looks))
    return f"<ul class='legend'>{''.join(items)}</ul>"


def _seed_table(rows: Sequence[Result]) -> str:
    """The mean over tasks under every demonstration seed."""
    ks = shown_ks(rows)
    lines_of = []
    for instruction in wordings(rows):
        for curve in models(curves(rows, MEAN, instruction)):
            for seed in range(min(len(row.seed_values) for row in curve.points.values())):
                points = (curve.points.get(k) for k in ks)
                values = ("" if row is None else f"{100 * row.seed_values[seed]:.1f}" for row in points)
                lines_of.append([escape(curve.name), said(instruction), str(seed), *values])
    head = ["checkpoint", INSTRUCTION, "seed", *k_heads(ks)]
    return folded("Exact match under each demonstration seed", table(head, lines_of))


def _excluded(provenance: Mapping[str, Description]) -> str:
    """What each model's training was kept from seeing, counted."""
    rows = []
    for label, description in provenance.items():
        excluded = description.excluded
        for name, number in excluded.get("examples", {}).items():
            rows.append([escape(label), escape(name), f"{number:,} examples drawn and passed over"])
        for name, counts in excluded.get("corpora", {}).items():
            told = ", ".join(f"{what.replace('_', ' ')} {count:,}" for what, count in counts.items())
            if told:
                rows.append([escape(label), escape(name), escape(told)])
    if not rows:
        return ""
    numbers = ", ".join(f"{label} {d.excluded.get('identities', 0):,}" for label, d in provenance.items())
    return (
        "<p>Held-out examples that training must not show, by the number of their identities: "
        f"{escape(numbers)}.</p><div class='card'>"
        f"{table(['checkpoint', 'task or corpus', 'kept out'], rows)}</div>"
    )


def _method(config: EvalConfig) -> str:
    budget = (
        f"at most {config.max_new_tokens}" if config.max_new_tokens else "as many as the longest answer has"
    )
    decoding = "greedy"
    if config.beam_width > 1:
        decoding = (
            f"from a beam search of width {config.beam_width} with length penalty {config.length_penalty} "
            f"({config.length_rule})"
        )
    elif config.temperature:
        decoding = f"sampled at temperature {config.temperature}"
    own = " Tasks with settings of their own have them in the list at the end." if config.per_task else ""
    return (
        f"Generated answers are {decoding}, {budget} tokens, cut at the delimiter; "
        "exact match ignores white space around them, and what else the task's rule says. Where there are "
        "options, the best of them by the task's rule is the answer, as the records say. The demonstrations "
        f"for K are the first of those for a larger K, and never share the query's "
        f"exclusion key. {_INTERVALS[config.demonstrations]} Clusters are task instances; in tasks of one "
        "instance, passages or queries. Scores in 0 to 100 % with fewer than 300 clusters, or at 0 or 100 %, "
        "have Clopper-Pearson intervals at the effective number of trials, others the cluster bootstrap or "
        "Student's t. Rules to compare with: chance, a guess among the answers that the form allows; copy, "
        "the input itself; majority, the answer most frequent among the demonstrations; training majority, "
        "the most frequent in the whole pool; lookup, the answer shown for the same input, else majority."
        f"{own}"
    )


def _provenance(provenance: Mapping[str, Description], config: EvalConfig) -> str:
    rows = [
        [
            escape(label),
            escape(d.rung),
            f"{d.step:,}",
            "unknown" if d.is_imported else f"{d.tokens:,}",
            f"{d.params:,}",
            "unknown" if d.is_imported else str(d.train_seed),
            escape(d.git[:20]),
            escape(", ".join(f"{name} {version}" for name, version in d.versions.items())),
        ]
        for label, d in provenance.items()
    ]
    head = ["checkpoint", "rung", "step", "tokens", "parameters", "training seed", "code", "packages"]
    settings = ", ".join(f"{name} = {value!r}" for name, value in dataclasses.asdict(config).items())
    return f"<div class='provenance'>{table(head, rows)}</div><p class='lead'>{escape(settings)}</p>"

"""The report: one HTML file that needs nothing else, with K-curves, tables, whole prompts and provenance.

Whatever tasks, prompts, models or paths say is escaped: it is text of others.
"""

import dataclasses
import string
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from icl.evaluation import published
from icl.evaluation.config import EvalConfig
from icl.evaluation.curves import (
    Curve,
    baselines,
    curves,
    models,
    shown_ks,
    task_names,
    wording_name,
    wordings,
)
from icl.evaluation.figures import legend_svg, panel_svg, write_figures
from icl.evaluation.findings import findings
from icl.evaluation.records import Record, Result, write_file
from icl.evaluation.results import MEAN
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
) -> None:
    """Writes the report, and its figures as PNG beside it.

    Args:
      path: The HTML file.
      results: All results of the evaluation.
      samples: Records that hold their prompts, to be shown whole.
      provenance: What every checkpoint says of itself, by label.
      config: What was asked.
    """
    template = string.Template(resources.files(__package__).joinpath(TEMPLATE_FILE).read_text("utf-8"))
    tasks, settings = task_names(results), wordings(results)
    parts = {
        "title": "In-context learning: score against demonstrations",
        "subtitle": escape(_subtitle(results, provenance, config)),
        "findings": "\n".join(f"<li>{escape(sentence)}</li>" for sentence in findings(results)),
        "legend": _legend(results),
        "mean_panels": "\n".join(_panel(results, MEAN, instruction) for instruction in settings),
        "mean_table": _score_table(results, MEAN),
        "published": _published(results, provenance),
        "task_panels": "\n".join(_panel(results, task, setting) for task in tasks for setting in settings),
        "task_tables": "\n".join(
            f"<details><summary>Table of {escape(task)}</summary><div class='card scroll'>"
            f"{_score_table(results, task)}</div></details>"
            for task in tasks
        ),
        "prompts": "\n".join(_prompts(samples, task) for task in tasks),
        "seed_table": _seed_table(results),
        "method": f"<p>{escape(_method(config))}</p>",
        "excluded": _excluded(provenance),
        "provenance": _provenance(provenance, config),
    }
    write_file(path, template.substitute(parts).encode("utf-8", "replace"))
    write_figures(path.parent, results)


def _subtitle(results: Sequence[Result], provenance: Mapping[str, Description], config: EvalConfig) -> str:
    mean = next(row for row in results if row.task == MEAN and row.n)
    tasks = task_names(results)
    kind = "held-out" if config.split == "held_out" else "training"
    return (
        f"{_count(len(provenance), 'checkpoint')} ({', '.join(provenance)}), {_count(len(tasks), 'task')} "
        f"({', '.join(tasks)}); {mean.n} {kind} queries, {_count(config.seeds, 'demonstration seed')}, K = "
        f"{', '.join(map(str, config.ks))}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _legend(results: Sequence[Result]) -> str:
    items = (f"<li>{svg}{escape(name)}</li>" for name, svg in legend_svg(results))
    return f"<ul class='legend'>{''.join(items)}</ul>"


def _panel(results: Sequence[Result], task: str, instruction: bool) -> str:
    found = curves(results, task, instruction)
    if not found:
        return ""
    name = "Mean over tasks" if task == MEAN else task
    title = f"{name}, {wording_name(instruction)}"
    label = "; ".join(
        f"{curve.name} {100 * curve.last.value:.0f} % at K = {curve.last.k}" for curve in models(found)
    )
    return (
        f"<figure class='card'><h3>{escape(title)}</h3><div role='img' aria-label='{escape(label)}'>"
        f"{panel_svg(results, task, instruction)}</div></figure>"
    )


def _score_table(results: Sequence[Result], task: str) -> str:
    ks = shown_ks(results)
    rows = []
    for instruction in wordings(results):
        found = curves(results, task, instruction)
        rows += [_score_row(curve, ks, "yes" if instruction else "no") for curve in models(found)]
    rules = baselines(curves(results, task, wordings(results)[0]))
    rows += [_score_row(curve, ks, "") for curve in rules]
    return _table(["exact match, %", "parameters", "instruction", *(f"K = {k}" for k in ks)], rows)


def _score_row(curve: Curve, ks: Sequence[int], instruction: str) -> list[str]:
    params = f"{curve.first.params:,}" if curve.first.params else ""
    return [escape(curve.name), params, instruction, *(_score(curve.points.get(k)) for k in ks)]


def _score(row: Result | None) -> str:
    if row is None:
        return ""
    if row.ci_low is None or row.ci_high is None:
        return f"{100 * row.value:.1f}"
    interval = f"{100 * row.ci_low:.0f}–{100 * row.ci_high:.0f}"
    fitted = "" if row.k_effective == row.k else f"<br><small>K fitted {row.k_effective:g}</small>"
    return f"{100 * row.value:.1f}<br><small>{interval}</small>{fitted}"


def _published(results: Sequence[Result], provenance: Mapping[str, Description]) -> str:
    """Our scores beside those of Table H.1, where there are tasks of that table; else nothing."""
    found = {task: one for task in task_names(results) if (one := published.published(task))}
    if not found:
        return ""
    ks = shown_ks(results)
    head = ["exact match, %", "instruction", *(f"K = {k}" for k in ks)]
    head += [f"{size}, {setting}-shot" for size in _PUBLISHED_SIZES for setting in published.SETTINGS]
    scores: dict[tuple[str, bool], dict[str, dict[int, Result]]] = {}
    rows = []
    for task, one in found.items():
        for instruction in wordings(results):
            for curve in models(curves(results, task, instruction)):
                scores.setdefault((curve.name, instruction), {})[task] = curve.points
                label = _trained_label(provenance[curve.name], task)
                name = f"{escape(task)}<br><small>{escape(curve.name)}, {label}</small>"
                cells = [_score(curve.points.get(k)) for k in ks]
                rows.append([name, "yes" if instruction else "no", *cells, *_published_cells([one])])
    for (model, instruction), by_task in scores.items():
        means = [
            f"{100 * sum(points[k].value for points in by_task.values() if k in points) / len(by_task):.1f}"
            for k in ks
        ]
        name = f"mean of {_count(len(by_task), 'task')}<br><small>{escape(model)}</small>"
        cells = _published_cells([found[task] for task in by_task])
        rows.append([name, "yes" if instruction else "no", *means, *cells])
    few = sorted({one.k for one in found.values()})
    return (
        "<section><h2>Beside the published scores</h2><p class='lead'>Table H.1 of Language Models are "
        "Few-Shot Learners (arXiv 2005.14165), whose few-shot scores have K = "
        f"{' or '.join(map(str, few))}. This is not the setting of those models: they met such tasks only by "
        "chance in their training text. A model marked <em>trained on the task family</em> was trained on "
        "other examples of the same task.</p><div class='card scroll'>"
        f"{_table(head, rows)}</div></section>"
    )


_PUBLISHED_SIZES = ("1.3B", "13B", "175B")


def _published_cells(found: Sequence[published.Published]) -> list[str]:
    return [
        f"{published.mean_percent(found, setting, size):.1f}"
        for size in _PUBLISHED_SIZES
        for setting in published.SETTINGS
    ]


def _trained_label(description: Description, task: str) -> str:
    return f"{'' if description.was_trained_on(task) else 'not '}trained on the task family"


def _excluded(provenance: Mapping[str, Description]) -> str:
    """What each model's training was kept from seeing, counted."""
    rows = []
    for label, description in provenance.items():
        excluded = description.excluded
        for name, count in excluded.get("examples", {}).items():
            rows.append([escape(label), escape(name), f"{count:,} examples drawn and passed over"])
        for name, counts in excluded.get("corpora", {}).items():
            said = ", ".join(f"{what.replace('_', ' ')} {count:,}" for what, count in counts.items())
            if said:
                rows.append([escape(label), escape(name), escape(said)])
    if not rows:
        return ""
    numbers = ", ".join(f"{label} {d.excluded.get('identities', 0):,}" for label, d in provenance.items())
    return (
        "<p>Held-out examples that training must not show, by the number of their identities: "
        f"{escape(numbers)}.</p><div class='card scroll'>"
        f"{_table(['checkpoint', 'task or corpus', 'kept out'], rows)}</div>"
    )


def _seed_table(results: Sequence[Result]) -> str:
    ks = shown_ks(results)
    rows = []
    for instruction in wordings(results):
        for curve in models(curves(results, MEAN, instruction)):
            for seed in range(len(curve.first.seed_values)):
                values = (f"{100 * curve.points[k].seed_values[seed]:.1f}" for k in ks)
                rows.append([escape(curve.name), "yes" if instruction else "no", str(seed), *values])
    return _table(["checkpoint", "instruction", "seed", *(f"K = {k}" for k in ks)], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are HTML."""
    heads = "".join(f"<th scope='col'>{cell}</th>" for cell in head)
    lines = ("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _prompts(samples: Sequence[Record], task: str) -> str:
    """The sampled prompts of a task, each with the answers of all checkpoints; two of them unfolded."""
    prompts: dict[tuple[bool, int, str], list[Record]] = {}
    for record in samples:
        if record.task == task:
            prompts.setdefault((record.instruction, record.k_effective, record.prompt_sha256), []).append(
                record
            )
    plain, instructed = ([key for key in sorted(prompts) if key[0] == setting] for setting in (False, True))
    unfolded = [*plain[-1:], *instructed[:1]]
    blocks = []
    for key in [*plain, *instructed]:
        by_checkpoint = {record.checkpoint: record for record in prompts[key]}
        opened = " open" if key in unfolded else ""
        blocks.append(
            f"<details{opened}><summary>K = {key[1]}, {wording_name(key[0])}</summary>"
            f"<pre>{escape(prompts[key][0].prompt or '')}</pre><ul class='answers'>"
            f"{''.join(map(_answer, by_checkpoint.values()))}</ul></details>"
        )
    return f"<div class='card prompts'><h3>{escape(task)}</h3>{''.join(blocks)}</div>"


def _answer(record: Record) -> str:
    """What a checkpoint said, marked right or wrong in words and colour, and the gold answer if wrong."""
    kind, gold = "right", ""
    if not record.exact_match:
        kind, gold = "wrong", f" (the answer is <mark class='gold'>{escape(record.gold.strip())}</mark>)"
    said = f"<mark class='{kind}'>{escape(record.prediction.strip()) or 'nothing'}</mark>"
    return f"<li>{escape(record.checkpoint)}: {said} {kind}{gold}{_options(record)}</li>"


def _options(record: Record) -> str:
    """The options with their scores by the task's rule, the best first."""
    if not record.options:
        return ""
    rule = record.scoring.partition(":")[2]
    scores = record.option_scores()[rule]
    ranked = sorted(zip(scores, record.options, strict=True), key=lambda pair: -pair[0])
    rows = [[escape(text), f"{score:.3f}"] for score, text in ranked]
    return f"<details><summary>options</summary>{_table(['option', escape(rule)], rows)}</details>"


def _method(config: EvalConfig) -> str:
    budget = (
        f"at most {config.max_new_tokens}" if config.max_new_tokens else "as many as the longest answer has"
    )
    return (
        f"Answers are greedy, {budget} tokens, cut at the delimiter; exact match ignores white space around "
        f"them. Where there are options, the likeliest is the answer: by log-likelihood a token, or by its "
        f"gain over the option after the task's answer context alone, as the records say. The demonstrations "
        f"for K are the first of those for a larger K, and never share the query's "
        f"exclusion key. {_INTERVALS[config.demonstrations]} Clusters are task instances; in tasks of one "
        "instance, passages or queries. Scores in 0 to 100 % with fewer than 300 clusters, or at 0 or 100 %, "
        "have Clopper-Pearson intervals at the effective number of trials, others the cluster bootstrap or "
        "Student's t. Rules to compare with: chance, a guess among the answers that the form allows; copy, "
        "the input itself; majority, the answer most frequent among the demonstrations; training majority, "
        "the most frequent in the whole pool; lookup, the answer shown for the same input, else majority."
    )


def _provenance(provenance: Mapping[str, Description], config: EvalConfig) -> str:
    rows = [
        [
            escape(label),
            escape(d.rung),
            f"{d.step:,}",
            f"{d.tokens:,}",
            f"{d.params:,}",
            str(d.train_seed),
            escape(d.git[:20]),
            escape(", ".join(f"{name} {version}" for name, version in d.versions.items())),
        ]
        for label, d in provenance.items()
    ]
    head = ["checkpoint", "rung", "step", "tokens", "parameters", "training seed", "code", "packages"]
    settings = ", ".join(f"{name} = {value!r}" for name, value in dataclasses.asdict(config).items())
    return f"<div class='provenance'>{_table(head, rows)}</div><p class='lead'>{escape(settings)}</p>"

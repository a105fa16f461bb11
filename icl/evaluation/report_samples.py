"""The sampled records of a task as HTML: whole prompts, answers, options, and how likely each token was.

Everything stands in the page as text and attributes; its script only hides what a reader filters out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from icl.evaluation.curves import condition_name, wording_name
from icl.evaluation.metrics import best
from icl.evaluation.records import Record
from icl.evaluation.report_html import count, table
from icl.evaluation.results import CONDITION, TEMPLATE

MAX_PROMPTS = 24
"""Prompts of a task that the report holds."""

MAX_CHARACTERS = 6_000
"""Of a prompt, that the report holds; most of them from its end, where the query is."""

HEAD_CHARACTERS = 1_500
MAX_PIECES = 120

SHADES = ((0.9, "p5"), (0.5, "p4"), (0.1, "p3"), (0.01, "p2"), (0.0, "p1"))
"""From which probability a token has which shade."""

_Key = tuple[str, str, str, int, bool, int, str]


def samples_html(samples: Sequence[Record]) -> str:
    """The prompts of one task with the answers of all checkpoints, and the means to filter them."""
    prompts = _prompts(samples)
    if not prompts:
        return "<p class='note'>No prompts of this task were kept.</p>"
    chosen = sorted(prompts, key=lambda key: key[-1])[:MAX_PROMPTS]
    keys = [key for key in prompts if key in set(chosen)]
    unfolded = _unfolded(keys)
    shown = [record for key in keys for record in prompts[key].values()]
    blocks = "".join(_block(key, list(prompts[key].values()), key in unfolded) for key in keys)
    whole = f"{len(keys)} of {len(prompts)}" if len(keys) < len(prompts) else f"all {len(prompts)}"
    said = (
        f"<p class='note'>{whole} sampled prompts, chosen before any answer was known, with "
        f"{count(len(shown), 'answer')}. <span class='found' role='status'></span></p>"
    )
    return f"<div class='samples'>{_filters(shown)}{said}{blocks}</div>"


def _prompts(samples: Iterable[Record]) -> dict[_Key, dict[str, Record]]:
    """Records by prompt and checkpoint: queries as they come, from few demonstrations to many."""
    found: dict[_Key, dict[str, Record]] = {}
    number: dict[str, int] = {}
    for record in samples:
        number.setdefault(record.query, len(number))
        key = (
            record.query,
            record.condition,
            record.template,
            record.order,
            record.instruction,
            record.k_effective,
            record.prompt_sha256,
        )
        found.setdefault(key, {})[record.checkpoint] = record
    return dict(sorted(found.items(), key=lambda item: (number[item[0][0]], item[0][4:6], item[0])))


def _unfolded(keys: Sequence[_Key]) -> set[_Key]:
    """The first query's prompt with the most demonstrations, and its shortest with an instruction."""
    first = [key for key in keys if key[0] == keys[0][0]]
    plain = [key for key in first if not key[4]]
    return {*plain[-1:], *[key for key in first if key[4]][:1]}


def _filters(shown: Sequence[Record]) -> str:
    """Choices that the script answers; without it they stay hidden and everything is shown."""
    choices: Mapping[str, list[str]] = {
        "checkpoint": _distinct(record.checkpoint for record in shown),
        "k": [str(k) for k in sorted({record.k_effective for record in shown})],
        "instruction": _distinct(_wording(record) for record in shown),
        "condition": _distinct(record.condition for record in shown),
        "format": _distinct(record.template for record in shown),
        "answer": _distinct(_outcome(record) for record in shown),
    }
    names = {"k": "K"}
    fields = [
        f"<label>{names.get(name, name)} <select data-field='{name}'><option value=''>all</option>"
        + "".join(f"<option>{escape(value)}</option>" for value in values)
        + "</select></label>"
        for name, values in choices.items()
        if len(values) > 1
    ]
    search = "<label class='search'>text <input type='search' placeholder='in prompts and answers'></label>"
    return f"<form class='filters' hidden>{''.join(fields)}{search}</form>"


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _wording(record: Record) -> str:
    return "with" if record.instruction else "without"


def _outcome(record: Record) -> str:
    return "right" if record.exact_match else "wrong"


def _block(key: _Key, records: Sequence[Record], is_open: bool) -> str:
    first = records[0]
    said = [f"K = {first.k_effective}", wording_name(first.instruction)]
    said += [condition_name(first.condition)] if first.condition != CONDITION else []
    said += [f"format {first.template}"] if first.template != TEMPLATE else []
    said += [f"order {first.order}"] if first.order else []
    marks = "".join(f"<i class='{_outcome(record)}' title='{_outcome(record)}'></i>" for record in records)
    return (
        f"<details class='prompt'{' open' if is_open else ''}><summary>{escape(', '.join(said))} {marks} "
        f"<small>{escape(first.query)}</small></summary>{_prompt(first.prompt or '')}"
        f"<ul class='answers'>{''.join(map(_answer, records))}</ul></details>"
    )


def _prompt(text: str) -> str:
    """The prompt; of a long one the start and the end, and how much is left out."""
    left = len(text) - MAX_CHARACTERS
    if left <= 0:
        return f"<pre tabindex='0'>{escape(text)}</pre>"
    tail = MAX_CHARACTERS - HEAD_CHARACTERS
    return (
        f"<pre tabindex='0'>{escape(text[:HEAD_CHARACTERS])}<em class='cut'>… {left:,} characters of the "
        "prompt are "
        f"left out here; the record has them …</em>{escape(text[-tail:])}</pre>"
    )


def _answer(record: Record) -> str:
    """What a checkpoint said, marked right or wrong in words and colour, and the gold answer if wrong."""
    kind, gold = _outcome(record), ""
    if kind == "wrong":
        gold = f" (the answer is <mark class='gold'>{escape(record.gold.strip())}</mark>)"
    said = f"<mark class='{kind}'>{escape(record.prediction.strip()) or 'nothing'}</mark>"
    data = {
        "checkpoint": record.checkpoint,
        "k": str(record.k_effective),
        "instruction": _wording(record),
        "condition": record.condition,
        "format": record.template,
        "answer": kind,
    }
    attributes = "".join(f" data-{name}='{escape(value)}'" for name, value in data.items())
    return (
        f"<li{attributes}>{escape(record.checkpoint)}: {said} "
        f"{kind}{gold}{_generated(record)}{_pieces(record)}"
        f"{_options(record)}{_details(record)}</li>"
    )


def _generated(record: Record) -> str:
    """The text generated beside a choice among options."""
    if record.generated is None:
        return ""
    kind = "right" if record.generated_match else "wrong"
    text = escape(record.generated.strip()) or "nothing"
    return f"; generated <mark class='{kind}'>{text}</mark> {kind}"


def _pieces(record: Record) -> str:
    """The tokens of the gold answer, each with its probability, shaded by it."""
    if not record.pieces:
        return ""
    pairs = list(zip(record.pieces, record.piece_log_likelihoods, strict=True))
    tokens = "".join(_piece(text, value) for text, value in pairs[:MAX_PIECES])
    more = f" and {len(pairs) - MAX_PIECES} more" if len(pairs) > MAX_PIECES else ""
    return (
        f"<div class='tokens'><span class='label'>gold answer, probability of each token in %</span>{tokens}"
        f"{more}</div>"
    )


def _piece(text: str, log_likelihood: float) -> str:
    probability = math.exp(min(log_likelihood, 0.0))
    shade = next(name for least, name in SHADES if probability >= least)
    visible = escape(text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·")) or "∅"
    percent = 100 * probability
    shown = f"{percent:.0f}" if percent >= 1 else "&lt;1"
    title = f"{log_likelihood:.3f} nats"
    return f"<span class='token {shade}' title='{title}'>{visible}<small>{shown}</small></span>"


def _options(record: Record) -> str:
    """The options with what every rule makes of them; those that a rule prefers stand out."""
    if not record.options:
        return ""
    scores = record.option_scores()
    chosen = {rule: best(values) for rule, values in scores.items()}
    own = record.scoring.partition(":")[2]
    order = range(len(record.options))
    if own in scores:
        order = sorted(order, key=lambda i: -scores[own][i])  # type: ignore[assignment]
    head = ["option", *(f"{escape(rule)}{' *' if rule == own else ''}" for rule in scores)]
    rows = []
    for i in order:
        text = escape(record.options[i])
        name = f"<mark class='gold'>{text}</mark>" if i == record.gold_option else text
        cells = [
            f"<strong>{values[i]:.3f}</strong>" if chosen[rule] == i else f"{values[i]:.3f}"
            for rule, values in scores.items()
        ]
        rows.append([name, *cells])
    return (
        f"<details><summary>{len(rows)} options by every rule (* decides)</summary>"
        f"<div class='options'>{table(head, rows)}</div></details>"
    )


def _details(record: Record) -> str:
    """What else the record says, and how to find it."""
    said = [
        f"{record.prompt_tokens:,} tokens read",
        f"gold answer {record.log_likelihood:.3f} nats a token",
        f"seed {record.seed}",
    ]
    said += [f"F1 {100 * record.f1:.0f} %"] if record.f1 is not None else []
    said += [f"asked for K = {record.k}"] if record.k != record.k_effective else []
    said += [f"{record.lost:,} characters lost at the start of the input"] if record.lost else []
    said += ["the query stood among the demonstrations"] if record.query_seen else []
    said += [f"prompt {record.prompt_sha256[:12]}"]
    return f"<div class='details'>{escape('; '.join(said))}</div>"

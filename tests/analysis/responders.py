"""Records of made-up models that answer by a rule: by what they know, or by the demonstrations."""

from typing import Any

import numpy as np

from icl.evaluation.records import Record

LABELS = ("sun", "fig", "owl", "key")


def answer(
    query: str,
    chances: tuple[float, ...],
    *,
    gold: int,
    without_content: tuple[float, ...] = (),
    labels: tuple[str, ...] = LABELS,
    **changes: Any,
) -> Record:
    """The record of a query whose options have these probabilities; the likeliest is the answer."""
    chosen = int(np.argmax(chances))
    fields: dict[str, Any] = {
        "checkpoint": "made-up",
        "step": 0,
        "task": "word_class",
        "split": "held_out",
        "instance": "one",
        "query": query,
        "cluster": query,
        "seed": 0,
        "k": 4,
        "k_effective": 4,
        "instruction": False,
        "condition": "gold",
        "demonstrations": "per_query",
        "template": "default",
        "prompt_sha256": "",
        "prompt_tokens": 9,
        "lost": 0,
        "input": query,
        "gold": labels[gold],
        "gold_tokens": 3,
        "prediction": labels[chosen],
        "exact_match": float(chosen == gold),
        "token_accuracy": 1.0,
        "log_likelihood": -1.0,
        "answer_log_likelihood": -1.0,
        "edit_distance": 0.0,
        "query_seen": False,
        "scoring": "options:sum",
        "options": labels,
        "gold_option": gold,
        "option_tokens": (3,) * len(labels),
        "option_log_likelihoods": tuple(map(float, np.log(chances))),
        "calibration_log_likelihoods": tuple(map(float, np.log(without_content))),
    }
    fields |= changes
    return Record(**fields)


def sure_of(option: int, sure: float = 0.97) -> tuple[float, ...]:
    """Probabilities of one that is sure of an option."""
    rest = (1 - sure) / (len(LABELS) - 1)
    return tuple(sure if place == option else rest for place in range(len(LABELS)))

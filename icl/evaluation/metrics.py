"""What is measured of an answer: all of it right, each token right, how likely, and how far off."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from icl.tasks.task import OptionRule


def exact_match(prediction: str, gold: str) -> float:
    """1 where the answer equals the gold answer, white space around either apart; else 0."""
    return float(prediction.strip() == gold.strip())


def option_scores(
    texts: Sequence[str],
    tokens: Sequence[int],
    log_likelihoods: Sequence[float],
    unconditional: Sequence[float] = (),
) -> Mapping[OptionRule, list[float]]:
    """What each rule makes of the options of a query; the highest wins, of equal ones the first.

    "sum" is the log-likelihood in nats; "token", "char" and "byte" divide it by the option's length;
    "unconditional" subtracts that after the answer context alone (GPT-3 paper, section 2.4).
    """
    found: dict[OptionRule, list[float]] = {
        "sum": list(log_likelihoods),
        "token": [score / number for score, number in zip(log_likelihoods, tokens, strict=True)],
        "char": [score / len(text) for score, text in zip(log_likelihoods, texts, strict=True)],
        "byte": [score / len(text.encode()) for score, text in zip(log_likelihoods, texts, strict=True)],
    }
    if unconditional:
        found["unconditional"] = [a - b for a, b in zip(log_likelihoods, unconditional, strict=True)]
    return found


def best(scores: Sequence[float]) -> int:
    """The index of the highest score, the first of equal ones."""
    return max(range(len(scores)), key=lambda i: (scores[i], -i))


def token_accuracy(gold_N: Sequence[int], argmax_N: NDArray[np.int32]) -> float:
    """Share of the gold tokens, delimiter included, that are the model's first choice given those before."""
    return float(np.mean(np.asarray(gold_N) == argmax_N))


def edit_distance(prediction: str, gold: str) -> float:
    """Levenshtein distance over the length of the longer text: 0 for equal, 1 for nothing in common."""
    prediction, gold = prediction.strip(), gold.strip()
    if prediction == gold:
        return 0.0
    previous = list(range(len(gold) + 1))
    for i, left in enumerate(prediction, start=1):
        current = [i]
        for j, right in enumerate(gold, start=1):
            change = previous[j - 1] + (left != right)
            current.append(min(change, previous[j] + 1, current[j - 1] + 1))
        previous = current
    return previous[-1] / max(len(prediction), len(gold))

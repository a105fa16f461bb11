"""What is measured of an answer: all of it right, each token right, how likely, and how far off."""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from icl.tasks.task import AnswerRule

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(prediction: str, golds: Sequence[str], rule: AnswerRule = "exact") -> float:
    """1 where the answer equals one of the right ones, else 0; what counts as equal is the rule's.

    "exact" ignores white space around them, "squad" also case, punctuation and articles.
    """
    clean = str.strip if rule == "exact" else without_detail
    return float(any(clean(prediction) == clean(gold) for gold in golds))


def without_detail(answer: str) -> str:
    """An answer as SQuAD's official script compares it: no case, punctuation, articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def word_f1(prediction: str, golds: Sequence[str]) -> float:
    """The best F1 over words, with their counts, of the answer with one of the right ones (SQuAD's)."""
    return max(_f1(without_detail(prediction).split(), without_detail(gold).split()) for gold in golds)


def _f1(said: Sequence[str], right: Sequence[str]) -> float:
    shared = (Counter(said) & Counter(right)).total()
    if not said or not right:
        return float(said == right)
    return 2 * shared / (len(said) + len(right))


def option_scores(
    options: Sequence[str],
    tokens: Sequence[int],
    log_likelihoods: Sequence[float],
    unconditional: Sequence[float] = (),
    ending: str = "",
) -> Mapping[str, list[float]]:
    """What each rule (`OptionRule`) makes of a query's options; the highest wins, of equal ones the first.

    "sum" is the log-likelihood in nats; "token", "char" and "byte" divide it by the option's length, or by
    that of the `ending` that alone is scored; "unconditional" subtracts that after the answer context alone
    (GPT-3 paper, section 2.4).
    """
    texts = [ending or option for option in options]
    found = {
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

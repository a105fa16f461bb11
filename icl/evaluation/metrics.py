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
LARGEST_EXPONENT = 300.0
"""Perplexities stop at exp(300), about 2e130, so that they and their squares are finite."""


def exact_match(prediction: str, golds: Sequence[str], rule: AnswerRule = "exact") -> float:
    """1 where the answer equals one of the right ones, else 0; what counts as equal is the rule's.

    "exact" ignores white space around them, "squad" also case, punctuation and articles; "drop" compares
    numbers by their value besides. "coqa" is the mean over the human answers of the match with one of the
    others, so that a model is held against as many as a human is.
    """
    said = _comparable(prediction, rule)
    return _over_answers([float(said == gold) for gold in _right(golds, rule)], rule)


def word_f1(prediction: str, golds: Sequence[str], rule: AnswerRule = "squad") -> float:
    """The best F1 over words, with their counts, of the answer with one of the right ones (SQuAD's).

    "coqa" leaves one human answer out in turn, as `exact_match` does; "drop" compares sets of words, and
    gives nothing where the right answer has numbers of which none is said.
    """
    f1 = _drop_f1 if rule == "drop" else _f1
    said = _comparable(prediction, rule).split()
    return _over_answers([f1(said, gold.split()) for gold in _right(golds, rule)], rule)


def without_detail(answer: str) -> str:
    """An answer as SQuAD's official script compares it: no case, punctuation, articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def _comparable(answer: str, rule: AnswerRule) -> str:
    if rule == "exact":
        return answer.strip()
    return _drop_words(answer) if rule == "drop" else without_detail(answer)


def _right(golds: Sequence[str], rule: AnswerRule) -> list[str]:
    """The right answers as they compare.

    Of SQuAD's those of which nothing is left do not count; where none is left, the right answer is to say
    nothing (SQuAD v2, arXiv 1806.03822). DROP's do not count where they are blank.
    """
    if rule == "drop":
        return [_drop_words(gold) for gold in golds if gold.strip()]
    found = [_comparable(gold, rule) for gold in golds]
    return [gold for gold in found if gold] or [""] if rule == "squad" else found


def _over_answers(scores: Sequence[float], rule: AnswerRule) -> float:
    """The best score; for "coqa" the mean of the best of all but one, each of several left out in turn."""
    if rule != "coqa" or len(scores) < 2:
        return max(scores, default=0.0)
    left_out = range(len(scores))
    return sum(max(score for i, score in enumerate(scores) if i != out) for out in left_out) / len(scores)


def _f1(said: Sequence[str], right: Sequence[str]) -> float:
    shared = (Counter(said) & Counter(right)).total()
    if not said or not right:
        return float(said == right)
    return 2 * shared / (len(said) + len(right))


def _drop_words(answer: str) -> str:
    """An answer as DROP's official script compares it, word by word: numbers by value, others as SQuAD's."""
    words = (_drop_word(word) for word in re.split("[ -]", answer.lower()))
    return " ".join(word for word in words if word)


def _drop_word(word: str) -> str:
    bare = word if _is_number(word) else word.translate(_PUNCTUATION)
    return str(float(bare)) if _is_number(bare) else " ".join(_ARTICLES.sub(" ", bare).split())


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _drop_f1(said: Sequence[str], right: Sequence[str]) -> float:
    """DROP's F1 (arXiv 1903.00161) of an answer with one span, to two decimals as its script rounds it.

    The prediction is one text, so a right answer of several spans counts as one that lists them.
    """
    said_set, right_set = set(said), set(right)
    numbers = {word for word in right_set if _is_number(word)}
    if numbers and not numbers & said_set:
        return 0.0
    precision = len(said_set & right_set) / len(said_set) if said_set else 1.0
    recall = len(said_set & right_set) / len(right_set) if right_set else 1.0
    return round(2 * precision * recall / (precision + recall), 2) if precision + recall else 0.0


def option_scores(
    options: Sequence[str],
    tokens: Sequence[int],
    log_likelihoods: Sequence[float],
    unconditional: Sequence[float] = (),
    ending: str = "",
    calibration: Sequence[float] = (),
    channel: Sequence[float] = (),
) -> Mapping[str, list[float]]:
    """What each rule (`OptionRule`) makes of a query's options; the highest wins, of equal ones the first.

    "sum" is the log-likelihood in nats; "token", "char" and "byte" divide it by the option's length, or by
    that of the `ending` that alone is scored; "unconditional" subtracts that after the answer context alone
    (GPT-3 paper, section 2.4). "calibrated" subtracts that after the same demonstrations and an input without
    content (arXiv 2102.09690; the sum over options that the paper divides by is the same for all of them).
    "channel" is the log-likelihood of the input after the option (arXiv 2108.04106).
    """
    texts = [ending or option for option in options]
    found = {
        "sum": list(log_likelihoods),
        "token": [score / number for score, number in zip(log_likelihoods, tokens, strict=True)],
        "char": [score / len(text) for score, text in zip(log_likelihoods, texts, strict=True)],
        "byte": [score / len(text.encode()) for score, text in zip(log_likelihoods, texts, strict=True)],
    }
    for rule, prior in (("unconditional", unconditional), ("calibrated", calibration)):
        if prior:
            found[rule] = [a - b for a, b in zip(log_likelihoods, prior, strict=True)]
    if channel:
        found["channel"] = [score for score, _ in zip(channel, options, strict=True)]
    return found


def best(scores: Sequence[float]) -> int:
    """The index of the highest score, the first of equal ones."""
    return max(range(len(scores)), key=lambda i: (scores[i], -i))


def option_probability(scores: Sequence[float], gold: int) -> float:
    """Probability of the right option among the options: the softmax of their scores in nats."""
    return float(_softmax(scores)[gold])


def brier_score(scores: Sequence[float], gold: int) -> float:
    """Brier's score, 0 (sure and right) to 2 (sure and wrong): the sum over options of squared errors.

    Of the softmax of their scores against the right option (Brier 1950, Monthly Weather Review 78).
    """
    probabilities_O = _softmax(scores)
    probabilities_O[gold] -= 1
    return float(np.square(probabilities_O).sum())


def _softmax(scores: Sequence[float]) -> NDArray[np.float64]:
    scores_O = np.asarray(scores, np.float64)
    weights_O = np.exp(scores_O - scores_O.max())
    return weights_O / weights_O.sum()


def perplexity(log_likelihood: float, units: float) -> float:
    """The exponential of minus a log-likelihood (a sum, in nats) a unit; `units` counts tokens or words."""
    return float(np.exp(min(-log_likelihood / units, LARGEST_EXPONENT)))


def token_accuracy(gold_N: Sequence[int], argmax_N: NDArray[np.int32]) -> float:
    """Share of the gold tokens, delimiter included, that are the model's first choice given those before."""
    return float(np.mean(np.asarray(gold_N) == argmax_N))


def nearest(prediction: str, golds: Sequence[str]) -> float:
    """The edit distance to the nearest of the right answers."""
    return min(edit_distance(prediction, gold) for gold in golds)


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

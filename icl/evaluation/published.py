"""Published few-shot scores to set beside ours: Table H.1 of "Language Models are Few-Shot Learners".

The scores are facts from arXiv 2005.14165 (`gpt3_table_h1.csv`). They are of models that were not trained on
these tasks: where ours was, a comparison shows what a task asks of a model, not who learns better.
"""

import csv
import functools
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

SIZES = ("125M", "350M", "760M", "1.3B", "2.7B", "6.7B", "13B", "175B")
SETTINGS = ("zero", "one", "few")

_NAMES = {
    "two_digit_addition": "2D+",
    "two_digit_subtraction": "2D-",
    "three_digit_addition": "3D+",
    "three_digit_subtraction": "3D-",
    "four_digit_addition": "4D+",
    "four_digit_subtraction": "4D-",
    "five_digit_addition": "5D+",
    "five_digit_subtraction": "5D-",
    "two_digit_multiplication": "2Dx",
    "single_digit_three_ops": "1DC",
    "cycle_letters_in_word": "Cycled Letters",
    "mid_word_1_anagrams": "Anagrams 1",
    "mid_word_2_anagrams": "Anagrams 2",
    "random_insertion_in_word": "Symbol Insertion",
    "reversed_words": "Reversed Words",
}
"""The fifteen synthetic tasks by the names of their public files."""


class Published(NamedTuple):
    """Scores of a task in percent, by setting (zero, one, few) and model size; `k` is the few of few-shot."""

    name: str
    k: int
    percent: dict[str, dict[str, float]]


def published(task: str) -> Published | None:
    """The published scores of a task, by its name with or without something before it (`gpt3_...`)."""
    known = next((known for known in _NAMES if task == known or task.endswith(f"_{known}")), None)
    return None if known is None else _table()[_NAMES[known]]


def mean_percent(found: Sequence[Published], setting: str, size: str) -> float:
    """The mean of several tasks' scores."""
    return sum(one.percent[setting][size] for one in found) / len(found)


@functools.cache
def _table() -> dict[str, Published]:
    text = resources.files(__package__).joinpath("gpt3_table_h1.csv").read_text("utf-8")
    found: dict[str, Published] = {}
    for row in csv.DictReader(text.splitlines()):
        if row["task"] in _NAMES.values() and row["metric"] == "acc":
            one = found.setdefault(row["task"], Published(row["task"], int(row["k_fewshot"]), {}))
            one.percent[row["setting"]] = {size: float(row[size]) for size in SIZES}
    return found

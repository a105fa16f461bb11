"""Published few-shot scores to set beside ours: Table H.1 of "Language Models are Few-Shot Learners".

The scores are facts from arXiv 2005.14165 (`gpt3_table_h1.csv`). They are of models that were not trained on
these tasks: where ours was, a comparison shows what a task asks of a model, not who learns better.
"""

import csv
import functools
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import NamedTuple

SIZES: Mapping[str, float] = {
    "125M": 125e6,
    "350M": 350e6,
    "760M": 760e6,
    "1.3B": 1.3e9,
    "2.7B": 2.7e9,
    "6.7B": 6.7e9,
    "13B": 13e9,
    "175B": 175e9,
}
"""The models of the table and their parameters."""

SMALLEST = "125M"
SETTINGS = ("zero", "one", "few")

_SYNTHETIC = {
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

_NAMES = _SYNTHETIC | {
    "hellaswag": "HellaSwag",
    "lambada": "LAMBADA",
    "story_cloze": "StoryCloze",
    "natural_questions": "NQs",
    "trivia_qa": "TriviaQA",
    "web_questions": "WebQs",
    "wmt16_ro_en": "Ro-En 16",
    "wmt16_en_ro": "En-Ro 16",
    "wmt14_fr_en": "Fr-En 14",
    "wmt14_en_fr": "En-Fr 14",
    "wmt16_de_en": "De-En 16",
    "wmt16_en_de": "En-De 16",
    "winograd": "Winograd",
    "winogrande": "Winogrande",
    "piqa": "PIQA",
    "arc_challenge": "ARC (Challenge)",
    "arc_easy": "ARC (Easy)",
    "openbookqa": "OpenBookQA",
    "quac": "QuAC",
    "race_high": "RACE-h",
    "race_middle": "RACE-m",
    "squad_v2": "SQuADv2",
    "coqa": "CoQA",
    "drop": "DROP",
    "boolq": "BoolQ",
    "super_glue_boolq": "BoolQ",
    "super_glue_cb": "CB",
    "super_glue_copa": "COPA",
    "super_glue_rte": "RTE",
    "super_glue_wic": "WiC",
    "super_glue_wsc": "WSC",
    "super_glue_multirc": "MultiRC",
    "super_glue_record": "ReCoRD",
    "super_glue": "SuperGLUE",
    "anli_r1": "ANLI R1",
    "anli_r2": "ANLI R2",
    "anli_r3": "ANLI R3",
    "sat_analogies": "SAT Analogies",
}
"""Names of the table by those of our tasks, which may have a prefix."""

_METRICS: Mapping[str, tuple[str, ...]] = {
    "acc": ("exact_match",),
    "em": ("exact_match",),
    "f1": ("f1",),
    "ppl": ("perplexity",),
    "BLEU-sb": ("bleu",),
    "BLEU-mb": (),
    "f1a": ("f1a",),
    "average": (),
}
_OWN_METRICS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("CB", "f1"): ("macro_f1",),
    ("MultiRC", "acc"): ("group_accuracy",),
    ("ReCoRD", "acc"): ("record_em", "exact_match"),
    ("ReCoRD", "f1"): ("record_f1",),
}
"""What our results call a metric of the table; of several names the first that occurs. `multi-bleu.perl` with
XLM's tokeniser ("BLEU-mb") and the average over SuperGLUE have no counterpart."""

_NOTES: Mapping[tuple[str, str], str] = {
    ("WiC", "acc"): "its zero-shot scores are 0.00 at every size, so answers were generated, not compared",
    ("MultiRC", "acc"): "its one-shot scores equal its zero-shot scores at every size",
    ("MultiRC", "f1a"): "its one-shot scores equal its zero-shot scores at every size",
}


class Published(NamedTuple):
    """Scores of a task by setting (zero, one, few) and model size: in percent, perplexity as it is.

    `metric` is the table's, `ours` what results call it, `k` the few of few-shot (None for an average).
    """

    name: str
    metric: str
    split: str
    k: int | None
    scores: dict[str, dict[str, float]]
    ours: tuple[str, ...]

    @property
    def is_accuracy(self) -> bool:
        """Whether it is one of the 42 rows whose mean is Figure 1.3."""
        return self.metric in ("acc", "em")

    @property
    def is_suspect(self) -> bool:
        """Whether the smallest model's few-shot score repeats its one-shot score, as in 27 of 63 rows."""
        return self.scores["few"][SMALLEST] == self.scores["one"][SMALLEST]

    @property
    def note(self) -> str:
        """What else is odd about the row; "" for nothing."""
        return _NOTES.get((self.name, self.metric), "")


def published(task: str) -> tuple[Published, ...]:
    """The published rows of a task, by its name with or without a prefix (`gpt3_...`); the main one first."""
    names = {name for known, name in _NAMES.items() if task == known or task.endswith(f"_{known}")}
    rows = [row for row in table() if row.name in names]
    return tuple(sorted(rows, key=lambda row: (not row.is_accuracy, not row.ours)))


def accuracy_row(task: str) -> Published | None:
    """The row of a task that counts in Figure 1.3; None where it has none."""
    return next((row for row in published(task) if row.is_accuracy), None)


def mean_score(rows: Sequence[Published], setting: str, size: str) -> float:
    """The mean of several rows' scores."""
    return sum(row.scores[setting][size] for row in rows) / len(rows)


def accuracy_rows() -> tuple[Published, ...]:
    """The 42 rows whose mean is Figure 1.3: all accuracies, and SQuAD v2's exact match."""
    return tuple(row for row in table() if row.is_accuracy)


@functools.cache
def table() -> tuple[Published, ...]:
    """All 63 rows, in the table's order."""
    text = resources.files(__package__).joinpath("gpt3_table_h1.csv").read_text("utf-8")
    found: dict[tuple[str, str], Published] = {}
    for row in csv.DictReader(text.splitlines()):
        key = row["task"], row["metric"]
        k = int(row["k_fewshot"]) if row["k_fewshot"] else None
        ours = _OWN_METRICS.get(key, _METRICS[row["metric"]])
        one = found.setdefault(key, Published(*key, row["split"], k, {}, ours))
        one.scores[row["setting"]] = {size: float(row[size]) for size in SIZES}
    return tuple(found.values())

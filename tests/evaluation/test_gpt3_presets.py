"""The presets of the GPT-3 paper's evaluation ask its tasks with its numbers of demonstrations."""

import fnmatch
import json
from pathlib import Path
from typing import Any

import pytest

from icl import config
from icl.data.tokenizer import ByteTokenizer
from icl.evaluation.config import EvalConfig
from icl.evaluation.plan import make_plan
from icl.tasks import build_tasks, rebuild
from icl.tasks.tfds_readers import TFDS_TASKS

EVAL = Path(__file__).parents[2] / "gin" / "eval"
FOLDER = EVAL / "gpt3"
FILES = ("arithmetic.gin", "sat_analogies.gin", "scrambles.gin")
PRESETS = sorted(
    path.name for path in FOLDER.glob("*.gin") if path.name not in ("protocol.gin", "tfds.gin", *FILES)
)

# Appendix G of the paper (arXiv 2005.14165).
PAPER_K = {
    "lambada": 15, "hellaswag": 20, "story_cloze": 70, "natural_questions": 64, "web_questions": 64,
    "trivia_qa": 64, "wmt1?_*": 64, "winograd": 7, "winogrande": 50, "piqa": 50, "arc_*": 50,
    "openbookqa": 100, "coqa": 5, "quac": 5, "squad_v2": 16, "drop": 20, "race_*": 10,
    "super_glue_*": 32, "anli_r?": 50,
}  # fmt: skip
NOT_IN_THE_PAPER = ("boolq", "gsm8k*", "glue_*")
FIXED = {"super_glue_wsc", "super_glue_multirc"}
BOTH = {f"super_glue_{name}" for name in ("boolq", "cb", "rte", "wic", "wsc")}
OF_THE_PAPER = [t for t in TFDS_TASKS if not any(fnmatch.fnmatchcase(t, p) for p in NOT_IN_THE_PAPER)]


def load(path: Path) -> tuple[EvalConfig, list[str]]:
    settings, overrides, *_ = config.load_eval([str(path)])
    patterns = overrides["tfds"]["names"]
    return settings, [task for task in TFDS_TASKS if any(fnmatch.fnmatchcase(task, p) for p in patterns)]


def check(settings: EvalConfig, task: str) -> None:
    """The settings of one task are the paper's."""
    own = settings.of(task)
    (number,) = {k for pattern, k in PAPER_K.items() if fnmatch.fnmatchcase(task, pattern)}
    assert own.ks == (0, 1, number)
    assert (own.demonstrations == "fixed") == (task in FIXED)
    assert own.choice_answers == ("both" if task in BOTH else "options")
    assert (own.beam_width, own.length_penalty, own.length_rule) == (4, 0.6, "gnmt")
    assert own.max_new_tokens == (128 if task.startswith("wmt") else 0)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_asks_its_tasks_as_the_paper_did(name: str) -> None:
    settings, tasks = load(FOLDER / name)
    for task in tasks:
        check(settings, task)


def test_every_task_of_the_paper_stands_in_one_preset() -> None:
    named = [task for name in PRESETS for task in load(FOLDER / name)[1]]
    assert sorted(named) == sorted(OF_THE_PAPER)


def test_one_preset_asks_all_tasks_each_in_its_own_way() -> None:
    settings, tasks = load(EVAL / "gpt3_all.gin")
    assert tasks == OF_THE_PAPER
    for task in tasks:
        check(settings, task)
    for pattern in settings.per_task:
        assert fnmatch.filter(tasks, pattern), f"{pattern} names no task"


def prompts(name: str, k: int, rows: dict[str, list[Any]], macro: str, folder: Path) -> dict[str, str]:
    """The first prompt of each task that a preset for K = k makes of files, with its answer after a mark."""
    for stem, lines in rows.items():
        (folder / f"{stem}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings, overrides, *_ = config.load_eval([str(FOLDER / name)], [f"{macro} = '{folder}/*.jsonl'"])
    assert settings.ks == (0, 1, k)
    shorter = EvalConfig(tasks=settings.tasks, ks=(2,), instruction=settings.instruction, seeds=1, queries=1)
    plan = make_plan(shorter, build_tasks(rebuild(overrides)), ByteTokenizer(), 10**4)
    return {task: f"{trial.prompt(2)}|{trial.query.example.target}" for task, (trial,) in plan.trials.items()}


_SUMS = [{"context": f"\n\nQ: What is 9{i} plus 1?\n\nA:", "completion": f" 9{i + 1}"} for i in (1, 4, 6)]
_SCRAMBLES = [
    {"context": f"\n{word[1:] + word[0]} =", "completion": f" {word}"} for word in ("melon", "grape", "lemon")
]
_FILES = {
    "two_digit_addition": _SUMS,
    **dict.fromkeys(
        (
            "cycle_letters_in_word", "mid_word_1_anagrams", "mid_word_2_anagrams",
            "random_insertion_in_word", "reversed_words",
        ),
        _SCRAMBLES,
    ),
}  # fmt: skip


def test_the_papers_own_files_are_asked_in_its_words(tmp_path: Path) -> None:
    found = prompts("arithmetic.gin", 50, _FILES, "gpt3", tmp_path)
    assert found == {
        "gpt3_two_digit_addition": "Q: What is 94 plus 1?\n\nA: 95\n\nQ: What is 91 plus 1?\n\nA: 92\n\n"
        "Q: What is 96 plus 1?\n\nA:|97"
    }
    found = prompts("scrambles.gin", 100, _FILES, "gpt3", tmp_path)
    assert len(found) == 5
    assert found["gpt3_reversed_words"] == (
        "Please unscramble the letters into a word, and write that word:\n"
        "rapeg = grape\nelonm = melon\nemonl =|lemon"
    )


def test_analogies_are_compared_after_the_first_pair(tmp_path: Path) -> None:
    rows = [
        {"query": f"{one} is to {two} as", "choices": ["up is to down", f"{two} is to {one}"], "gold": 1}
        for one, two in (("big", "small"), ("old", "new"), ("sad", "glad"))
    ]
    found = prompts("sat_analogies.gin", 20, {"sat": rows}, "sat_analogies", tmp_path)
    assert found == {
        "sat": "sad is to glad as glad is to sad\n\nold is to new as new is to old\n\n"
        "big is to small as|small is to big"
    }

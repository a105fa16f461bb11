"""The presets of the GPT-3 paper's evaluation ask its tasks with its numbers of demonstrations."""

import fnmatch
from pathlib import Path

import pytest

from icl import config
from icl.tasks.tfds_readers import TFDS_TASKS

FOLDER = Path(__file__).parents[2] / "gin" / "eval" / "gpt3"
PRESETS = sorted(path.name for path in FOLDER.glob("*.gin") if path.name != "protocol.gin")

# Appendix G of the paper (arXiv 2005.14165).
PAPER_K = {
    "lambada": 15, "hellaswag": 20, "story_cloze": 70, "natural_questions": 64, "web_questions": 64,
    "trivia_qa": 64, "wmt1?_*": 64, "winograd": 7, "winogrande": 50, "piqa": 50, "arc_*": 50,
    "openbookqa": 100, "coqa": 5, "quac": 5, "squad_v2": 16, "drop": 20, "race_*": 10,
    "super_glue_*": 32, "anli_r?": 50,
}  # fmt: skip
NOT_IN_THE_PAPER = ("boolq", "gsm8k*", "glue_*")
FIXED = {"super_glue_wsc", "super_glue_multirc"}


def tasks(name: str) -> list[str]:
    _, overrides = config.load_eval([str(FOLDER / name)])
    patterns = overrides["tfds"]["names"]
    return [task for task in TFDS_TASKS if any(fnmatch.fnmatchcase(task, p) for p in patterns)]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_shows_as_many_demonstrations_as_the_paper(name: str) -> None:
    settings, _ = config.load_eval([str(FOLDER / name)])
    for task in tasks(name):
        (number,) = {k for pattern, k in PAPER_K.items() if fnmatch.fnmatchcase(task, pattern)}
        assert settings.ks == (0, 1, number)
        assert (settings.demonstrations == "fixed") == (task in FIXED)


def test_every_task_of_the_paper_stands_in_one_preset() -> None:
    named = [task for name in PRESETS for task in tasks(name)]
    expected = [t for t in TFDS_TASKS if not any(fnmatch.fnmatchcase(t, p) for p in NOT_IN_THE_PAPER)]
    assert sorted(named) == sorted(expected)

"""Claims about the GPT-3 battery: worded as the paper's files, right, held out by content, quick to draw."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl.data.keys import generator
from icl.errors import InputError
from icl.evaluation.prompts import prompt_text
from icl.tasks import Arithmetic, Example, FileTasks, Scrambles, Task
from icl.tasks.arithmetic import PAPER
from icl.tasks.battery import content_fractions
from icl.tasks.exclusion import input_identity, word_identity
from icl.tasks.scrambles import SCRAMBLES

ARITHMETIC = {task.name: task for task in Arithmetic(held_out_share=0.2).build("arithmetic")}
SCRAMBLED = {task.name: task for task in Scrambles(held_out_share=0.2).build("scrambles")}


def drawn(task: Task, split: str, number: int) -> list[Example]:
    instance = task.instance(split, 0)  # type: ignore[arg-type]
    return list(itertools.islice(instance.demonstrations(generator("test", task.name)), number))


def operands(example: Example) -> tuple[int, int]:
    a, b = map(int, re.findall(r"\d+", example.input))
    return a, b


@pytest.mark.parametrize("name", PAPER)
def test_answers_are_pythons(name: str) -> None:
    for example in drawn(ARITHMETIC[name], "train", 300):
        question = example.input.removeprefix("What is ").removesuffix("?")
        for word, sign in (("plus", "+"), ("minus", "-"), ("times", "*")):
            question = question.replace(word, sign)
        assert re.fullmatch(r"[\d ()+*-]+", question) and int(example.target) == eval(question)


def test_prompts_are_those_of_the_papers_files(tmp_path: Path) -> None:
    """Made from a file in the public form and made from numbers, character for character."""
    pairs = [(98, 45), (0, 25), (7, 90), (3, 4)]
    lines = [{"context": f"\n\nQ: What is {a} plus {b}?\n\nA:", "completion": f" {a + b}"} for a, b in pairs]
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    task = FileTasks(glob=str(path), pool="shared").build("")[0]
    (query, *others) = [q.example for q in task.queries("held_out")]
    ours = ARITHMETIC["two_digit_addition"]
    remade = [Example(f"What is {a} plus {b}?", str(a + b)) for a, b in map(operands, (query, *others))]
    text = prompt_text(task.template, None, others, query)
    assert text == prompt_text(ours.template, None, remade[1:], remade[0])
    original = {
        operands(Example(line["context"], "")): line["context"] + line["completion"] for line in lines
    }
    shown = "".join(original[operands(example)] for example in others)
    assert "\n\n" + text == shown + original[operands(query)].partition("A:")[0] + "A:"

    words = [
        {"context": "\nasinoc =", "completion": " casino"},
        {"context": "\nrslaye =", "completion": " layers"},
    ]
    path.write_text("\n".join(map(json.dumps, words)))
    task = FileTasks(glob=str(path), pool="shared", exclusion_key="output").build("")[0]
    (query, other) = [q.example for q in task.queries("held_out")]
    ours = SCRAMBLED["cycle_letters_in_word"]
    remade = [Example(e.input.removesuffix(" ="), e.target) for e in (query, other)]
    text = prompt_text(task.template, ours.instruction, [other], query)
    assert text == prompt_text(ours.template, ours.instruction, [remade[1]], remade[0])
    assert text.startswith("Please unscramble the letters into a word, and write that word:\n") and query.key


@pytest.mark.parametrize("name", [name for name in PAPER if "three_ops" not in name])
def test_held_out_operands_never_occur_in_training_in_either_order(name: str) -> None:
    task = ARITHMETIC[name]
    parts = {
        split: {tuple(sorted(operands(example))) for example in drawn(task, split, 3000)}
        for split in ("train", "held_out")
    }
    assert not parts["train"] & parts["held_out"] and min(map(len, parts.values())) > 900
    if name.startswith("two"):
        share = len(parts["held_out"]) / len(set.union(*parts.values()))
        assert 0.15 < share < 0.4


def test_operands_are_uniform_and_not_padded() -> None:
    numbers = [n for e in drawn(ARITHMETIC["three_digit_addition"], "train", 4000) for n in operands(e)]
    assert min(numbers) >= 0 and max(numbers) <= 999
    assert np.histogram(numbers, 10, (0, 1000))[0].min() > 0.85 * len(numbers) / 10
    assert not any(
        re.search(r"\b0\d", e.input) for e in drawn(ARITHMETIC["three_digit_addition"], "train", 999)
    )


def test_identities_are_what_a_public_file_is_known_by() -> None:
    task = ARITHMETIC["two_digit_addition"]
    context = "\n\nQ: What is 98 plus 45?\n\nA:"
    for question in ("What is 98 plus 45?", "What is 45 plus 98?"):
        assert input_identity(context) in task.identities(Example(question, "143"))
    minus = ARITHMETIC["two_digit_subtraction"]
    assert "what is 9 minus 4?" not in minus.identities(Example("What is 4 minus 9?", "-5"))
    scramble = SCRAMBLED["reversed_words"]
    found = scramble.identities(Example("onisac", "casino"))
    assert {word_identity("Casino"), input_identity("\nonisac =")} <= set(found)


@pytest.mark.parametrize("name", SCRAMBLES)
def test_scrambles_hide_words_by_their_rule(name: str) -> None:
    for example in drawn(SCRAMBLED[name], "train", 300):
        hidden, word = example.input, example.target
        letters = re.sub(r"[ ./!]", "", hidden)
        assert sorted(letters) == sorted(word) and 5 <= len(word) <= 15
        rules = {
            "cycle_letters_in_word": hidden != word or len(set(word)) == 1,
            "mid_word_1_anagrams": (hidden[0], hidden[-1]) == (word[0], word[-1]),
            "mid_word_2_anagrams": (hidden[:2], hidden[-2:]) == (word[:2], word[-2:]),
            "random_insertion_in_word": letters == word and len(hidden) == 2 * len(word) - 1,
            "reversed_words": hidden == word[::-1],
        }
        assert rules[name]
        if name == "cycle_letters_in_word":
            assert word in hidden + hidden


def test_held_out_words_never_occur_in_training() -> None:
    train = {e.target for task in SCRAMBLED.values() for e in drawn(task, "train", 2000)}
    held = {e.target for task in SCRAMBLED.values() for e in drawn(task, "held_out", 2000)}
    assert not train & held and len(held) > 1000


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=20))
def test_a_split_by_content_depends_on_the_row_alone(rows: list[tuple[int, int]]) -> None:
    together = content_fractions(np.array(rows))
    alone = [content_fractions(np.array([row]))[0] for row in rows]
    assert together.tolist() == alone and all(0 <= x < 1 for x in alone)


def test_content_fractions_are_even() -> None:
    grid = np.stack(np.meshgrid(np.arange(100), np.arange(100)), -1).reshape(-1, 2)
    counts = np.histogram(content_fractions(grid), 10, (0, 1))[0]
    assert counts.min() > 900 and counts.max() < 1100


def test_queries_are_distinct_and_in_a_fixed_order() -> None:
    for task in (ARITHMETIC["two_digit_multiplication"], SCRAMBLED["mid_word_1_anagrams"]):
        first, again = ([q.name for q in itertools.islice(task.queries("held_out"), 200)] for _ in range(2))
        assert first == again and len(set(first)) == 200


@pytest.mark.parametrize(
    ("family", "settings", "says"),
    [
        (Arithmetic, {"tasks": ("two_digit_division",)}, "'two_digit_division'"),
        (Arithmetic, {"tasks": ("zero_digit_addition",)}, "'zero_digit_addition'"),
        (Arithmetic, {"tasks": ()}, "one task at least"),
        (Arithmetic, {"held_out_share": 0}, "between 0 and 1"),
        (Scrambles, {"tasks": ("shouted_words",)}, "'shouted_words'"),
        (Scrambles, {"num_words": -1}, "0 (all) or more"),
        (Scrambles, {"num_words": 1}, "expected more words"),
        (Scrambles, {"words": "no/such.txt"}, "no such file"),
    ],
)
def test_bad_settings_are_named(family: type, settings: dict[str, object], says: str) -> None:
    with pytest.raises(InputError) as caught:
        family(**settings).build("x")
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_another_word_list_is_read_and_its_defects_are_named(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# mine\nlantern\nOcean\nsea\n" + "\n".join(f"word{'abcdefghij'[i]}" for i in range(10)))
    (task,) = Scrambles(tasks=("reversed_words",), words=str(path), held_out_share=0.3).build("x")
    assert {e.target for e in drawn(task, "train", 200)} <= {"lantern", "ocean"} | {
        f"word{c}" for c in "abcdefghij"
    }
    path.write_text("lantern\ntwo words\n")
    with pytest.raises(InputError, match="words.txt, line 2: 'two words'"):
        Scrambles(words=str(path)).build("x")


def test_more_digits_than_the_paper_has() -> None:
    (task,) = Arithmetic(tasks=("twelve_digit_subtraction",)).build("x")
    assert max(n for e in drawn(task, "train", 50) for n in operands(e)) > 10**10

"""Turns rows of TFDS data sets into examples: one small function for each kind of row.

Texts follow the GPT-3 paper (arXiv 2005.14165, appendix G) where it has the task. A row may give several
examples (the questions on an article, the turns of a dialogue) or none (a test row without its label). The
exclusion key of a task with passages is the passage: no demonstration shares it with the query.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from icl.tasks.exclusion import normalise
from icl.tasks.task import Example

Row = Mapping[str, Any]
Reader = Callable[[Row], Iterator[Example]]

GUESSES = ("no", "yes")
UNANSWERABLE = "N/A"
TOGETHER = "rows"
"""The field that holds the rows that are read as one (`Reading.together`)."""


def plain(value: Any) -> Any:
    """A row with text as str and arrays as lists: files give bytes and arrays, TFDS's mock data str."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "to_list"):  # ragged
        return plain(value.to_list())
    return value


def together(row: Row) -> Sequence[Row]:
    """The rows that a row stands for."""
    rows: Sequence[Row] = row.get(TOGETHER, (row,))
    return rows


def _example(
    text: str, target: str, key: str | None = None, aliases: Sequence[str] = ()
) -> Iterator[Example]:
    text, target = text.strip(), target.strip()
    if text and target:
        key = normalise(text if key is None else key)
        yield Example(text, target, key, aliases=_others(aliases, target))


def _with_all_answers(examples: Iterator[Example], answers: Sequence[str]) -> Iterator[Example]:
    """With every other person's answer as an alias, equal ones too: each is left out in turn."""
    aliases = tuple(answer.strip() for answer in answers if answer.strip())
    return (dataclasses.replace(example, aliases=aliases) for example in examples)


def _others(aliases: Sequence[str], target: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each for alias in aliases if (each := alias.strip()) and each != target))


def _choose(
    text: str,
    choices: Sequence[str],
    label: int,
    key: str | None = None,
    *,
    ending: str = "",
    right: Sequence[str] = (),
    group: str = "",
) -> Iterator[Example]:
    """A multiple-choice example; none where the label is unknown or the options are not distinct.

    `right` are further options that are right, `group` what a corpus metric puts together.
    """
    text, options = text.strip(), tuple(choice.strip() for choice in choices)
    if text and 0 <= label < len(options) and len({*options}) == len(options) > 1:
        yield Example(
            text,
            options[label],
            normalise(text if key is None else key),
            options,
            ending=ending.rstrip(),
            aliases=_others(right, options[label]),
            group=group,
        )


def questions(field: str) -> Reader:
    """Reads open questions whose right answers are a list."""
    return functools.partial(_open_question, field=field)


def _open_question(row: Row, field: str) -> Iterator[Example]:
    if row[field]:
        yield from _example(row["question"], row[field][0], aliases=row[field])


def trivia_qa(row: Row) -> Iterator[Example]:
    """A question with all names of its answer."""
    if row["answer"]["value"] != "<unk>":
        answer = row["answer"]
        yield from _example(row["question"], answer["value"], aliases=answer["aliases"])


def coqa(row: Row) -> Iterator[Example]:
    """The turns of a dialogue, the passage and all earlier turns before each.

    TFDS keeps one answer a turn; rows that have `additional_answers`, by annotator, give them as aliases.
    """
    text, others = f"{row['story'].strip()}\n", (row.get("additional_answers") or {}).values()
    for number, (question, answer) in enumerate(
        zip(row["questions"], row["answers"]["input_text"], strict=False)
    ):
        text += f"\nQ: {question.strip()}\n\nA:"
        aliases = [texts[number] for other in others if number < len(texts := other["input_text"])]
        yield from _with_all_answers(_example(text, answer, row["story"]), aliases)
        text += f" {answer.strip()}\n"


def quac(row: Row) -> Iterator[Example]:
    """One turn of a dialogue: TFDS keeps neither the earlier ones nor the order of its rows."""
    passage = row["context"].strip().removesuffix("CANNOTANSWER").strip()
    title = " - ".join(filter(None, (row["title"].strip(), row["section_title"].strip())))
    text = f"TITLE: {title}\nPARAGRAPH: {passage}\n\nQ: {row['question'].strip()}\n\nA:"
    answer, answers = row["orig_answer"]["text"], [text.strip() for text in row["answers"]["text"]]
    if answer.strip() in answers:
        answers.remove(answer.strip())
    yield from _with_all_answers(_example(text, answer, row["context"]), answers)


def squad(row: Row) -> Iterator[Example]:
    """The questions on a paragraph, the earlier ones with their answers before each."""
    rows = sorted(together(row), key=lambda each: str(each["id"]))
    text = f"Title: {rows[0]['title'].replace('_', ' ')}\n\nBackground: {rows[0]['context'].strip()}"
    for each in rows:
        answers = each["answers"]["text"] or [UNANSWERABLE]
        text += f"\n\nQ: {each['question'].strip()}\n\nA:"
        yield from _example(text, answers[0], each["context"], answers)
        text += f" {answers[0].strip()}"


def drop(row: Row) -> Iterator[Example]:
    """A question on a passage, with the answers of other annotators."""
    text = f"Passage: {row['passage'].strip()}\nQuestion: {row['question'].strip()}\nAnswer:"
    yield from _example(text, row["answer"], row["passage"], row["validated_answers"])


def race(row: Row) -> Iterator[Example]:
    """The questions on an article, the earlier ones with their answers before each."""
    text = f"Article:\n{row['article'].strip()}\n"
    for question, options, answer in zip(row["questions"], row["options"], row["answers"], strict=False):
        text += f"\nQ: {question.strip()}\n\nA:"
        label = "ABCD".find(answer) if answer else -1
        yield from _choose(text, options, label, row["article"])
        text += f" {options[label].strip()}\n" if 0 <= label < len(options) else "\n"


def lambada(row: Row) -> Iterator[Example]:
    """A passage, of which the last word is the answer."""
    text, _, last = row["passage"].strip().rpartition(" ")
    yield from _example(text, last)


def hellaswag(row: Row) -> Iterator[Example]:
    """A scene and four ways in which it goes on."""
    yield from _choose(f"{row['activity_label']}: {row['context']}", row["endings"], row["label"])


def story_cloze(row: Row) -> Iterator[Example]:
    """A story and two endings."""
    yield from _choose(row["context"], row["endings"], row["label"])


def piqa(row: Row) -> Iterator[Example]:
    """A goal and two ways to reach it."""
    yield from _choose(row["goal"], (row["sol1"], row["sol2"]), row["label"])


def winogrande(row: Row) -> Iterator[Example]:
    """Both sentences from the gap on; the twin of a sentence has the same options and so the same key."""
    text, gap, rest = row["sentence"].partition("_")
    if gap:
        yield from _schema(text, (row["option1"], row["option2"]), rest, row["label"])


def wsc273(row: Row) -> Iterator[Example]:
    """Both sentences from the pronoun on, a noun in its place."""
    text, rest = row["text"][: row["pronoun_start"]], row["text"][row["pronoun_end"] :]
    yield from _schema(text, (row["option1"], row["option2"]), rest, row["label"])


def _schema(text: str, options: tuple[str, str], rest: str, label: int) -> Iterator[Example]:
    choices = [option + rest for option in options]
    yield from _choose(text, choices, label, " ".join(options), ending=rest)


def arc(row: Row) -> Iterator[Example]:
    """A question with its options."""
    labels = row["choices"]["label"]
    gold = labels.index(row["answerKey"]) if row["answerKey"] in labels else -1
    yield from _choose(f"Question: {row['question']}\nAnswer:", row["choices"]["text"], gold, row["question"])


def openbookqa(row: Row) -> Iterator[Example]:
    """The beginning of a sentence, or a question, with four options."""
    question = row["question"]
    yield from _choose(question["stem"], [question[f"choice_{x}"] for x in "ABCD"], row["answerKey"])


def bool_q(row: Row) -> Iterator[Example]:
    """A passage and a question to answer with yes or no."""
    answer = row["label"] if "label" in row else int(row["answer"])
    question = row["question"].strip().removesuffix("?")
    text = f"{row['passage']}\nquestion: {question}?\nanswer:"
    yield from _choose(text, GUESSES, answer, row["passage"])


def copa(row: Row) -> Iterator[Example]:
    """A premise with its cause or its effect."""
    link = "because" if row["question"] == "cause" else "so"
    choices = [row[field][:1].lower() + row[field][1:] for field in ("choice1", "choice2")]
    text = row["premise"].strip().removesuffix(".")
    yield from _choose(f"{text} {link}" if text else "", choices, row["label"])


def multirc(row: Row) -> Iterator[Example]:
    """An example for each answer to a question, right or wrong; they are one group."""
    for each in together(row):
        if each["answer"].strip():
            choices = [f"[{truth}] {each['answer'].strip()}" for truth in ("False", "True")]
            text, group = _multirc_question(each), f"{each['paragraph']}\n{each['question']}"
            yield from _choose(text, choices, each["label"], each["paragraph"], group=normalise(group))


def multirc_shown(row: Row) -> Iterator[Example]:
    """A question with all its answers judged: the K of the paper counts questions (figure G.15)."""
    judged = [
        f"[{each['label'] == 1}] {each['answer'].strip()}"
        for each in together(row)
        if each["answer"].strip() and each["label"] in (0, 1)
    ]
    first = together(row)[0]
    yield from _example(_multirc_question(first), "\n- ".join(judged), first["paragraph"])


def _multirc_question(row: Row) -> str:
    passage, question = row["paragraph"].strip(), row["question"].strip()
    return f"READING COMPREHENSION ANSWER KEY\n\n{passage}\n\n{question}\n-"


def record(row: Row) -> Iterator[Example]:
    """Every entity in the place of the query's placeholder; the first that is right is the answer."""
    entities = list(dict.fromkeys(entity.strip() for entity in row["entities"]))
    right = [entities.index(answer.strip()) for answer in row["answers"] if answer.strip() in entities]
    if right and "@placeholder" in row["query"]:
        text = row["passage"].replace("@highlight\n", "- ")
        choices = [row["query"].replace("@placeholder", entity) for entity in entities]
        also = [choices[index] for index in right]
        yield from _choose(f"{text}\n-", choices, right[0], row["passage"], right=also)


def wic(row: Row) -> Iterator[Example]:
    """Two sentences with one word."""
    question = f"question: Is the word '{row['word']}' used in the same way in the two sentences above?"
    sentences = f"{row['sentence1']}\n{row['sentence2']}"
    yield from _choose(f"{sentences}\n{question}\nanswer:", GUESSES, row["label"], sentences)


def wsc(row: Row) -> Iterator[Example]:
    """A passage and its pronoun; the nouns that its rows name are the options, where there are several.

    A row holds one noun, and whether it is the right one. Passages whose right noun no row names are left
    out: they do not tell an answer.
    """
    rows = together(row)
    nouns = [list(dict.fromkeys(_nouns(rows, label))) for label in (1, 0)]
    words, place = rows[0]["text"].split(), rows[0]["span2_index"]
    if nouns[0] and 0 <= place < len(words):
        words[place] = f"*{words[place]}*"
        question = f'In the passage above, what does the pronoun "*{rows[0]["span2_text"]}*" refer to?'
        text, key = f"Passage: {' '.join(words)}\nQuestion: {question}\nAnswer:", rows[0]["text"]
        right = [noun for noun in nouns[0] if noun not in nouns[1]] or nouns[0]
        wrong = [noun for noun in nouns[1] if noun not in right]
        options = sorted([right[0], *wrong])
        if wrong:
            yield from _choose(text, options, options.index(right[0]), key, right=right)
        else:
            yield from _example(text, right[0], key, right)


def _nouns(rows: Sequence[Row], label: int) -> Iterator[str]:
    yield from (noun for row in rows if row["label"] == label and (noun := row["span1_text"].strip()))


def pairs(first: str, second: str, labels: Sequence[str], form: str) -> Reader:
    """Reads two texts, written by a form, and a label; `{0}` and `{1}` are the texts."""
    return functools.partial(_pair, first, second, labels, form)


def _pair(first: str, second: str, labels: Sequence[str], form: str, row: Row) -> Iterator[Example]:
    texts = row[first].strip(), row[second].strip()
    if all(texts):
        yield from _choose(form.format(*texts), labels, row["label"], " ".join(texts))


def sentences(labels: Sequence[str], form: str) -> Reader:
    """Reads a sentence, written by a form, and a label."""
    return functools.partial(_single, labels, form)


def _single(labels: Sequence[str], form: str, row: Row) -> Iterator[Example]:
    if row["sentence"].strip():
        yield from _choose(form.format(row["sentence"].strip()), labels, row["label"], row["sentence"])


def translation(source: str, target: str) -> Reader:
    """Reads a sentence and its translation."""
    return functools.partial(_translation, source, target)


def _translation(source: str, target: str, row: Row) -> Iterator[Example]:
    yield from _example(row[source], row[target])


def gsm8k(row: Row) -> Iterator[Example]:
    """The last number of the solution."""
    _, _, number = row["answer"].partition("####")
    yield from _example(_gsm8k_question(row), number, row["question"])


def gsm8k_reasoning(row: Row) -> Iterator[Example]:
    """The solution, which ends in its number."""
    if "####" in row["answer"]:
        yield from _example(_gsm8k_question(row), row["answer"], row["question"])


def _gsm8k_question(row: Row) -> str:
    return f"Question: {row['question']}\nAnswer:"

"""How rows of TFDS data sets become examples: one small function each, and the table of tasks.

Prompts follow the GPT-3 paper (arXiv 2005.14165, appendix G) where it has the task. A row may give several
examples (the questions on a passage, the turns of a dialogue) or none (a test row without its label). The
exclusion key of a task with passages is the passage: no demonstration shares it with the query.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from icl.tasks.exclusion import normalise
from icl.tasks.task import AnswerRule, Example, OptionRule, Template

Row = Mapping[str, Any]
Reader = Callable[[Row], Iterator[Example]]

_QUESTION = Template(input_prefix="Q: ", separator="\n\nA:", target_prefix=" ", delimiter="\n\n")
_WHOLE = Template(separator="", target_prefix=" ", delimiter="\n\n")
_BLANK = Template(
    separator=" ____. ->",
    target_prefix=" ",
    delimiter="\n\n",
    instruction_delimiter="\n\n",
    alone=Template(separator="", target_prefix=" ", delimiter="\n\n"),
)
_WSC = (
    "Final Exam with Answer Key\nInstructions: Please carefully read the following passages. For each "
    "passage, you must identify which noun the pronoun marked in *bold* refers to.\n====="
)
_GUESSES = ("no", "yes")
_UNANSWERABLE = "N/A"


@dataclasses.dataclass(frozen=True)
class Reading:
    """A task of the table.

    Attributes:
      builder: Name of the TFDS data set, with its configuration.
      read: Turns a row into examples.
      template: How examples are written.
      train: Split that demonstrations and training rows come from.
      test: Split of the queries. Where it is the same, the set is shared and never trained on.
      instruction: What the task asks, in words.
      answer_rule: How a generated answer is held against the right ones.
      option_rule: How options compare.
      answer_context: What stands before an option for the rule "unconditional".
    """

    builder: str
    read: Reader
    template: Template = _WHOLE
    train: str = "train"
    test: str = "validation"
    instruction: str | None = None
    answer_rule: AnswerRule = "exact"
    option_rule: OptionRule = "token"
    answer_context: str = "Answer:"


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


def _example(
    text: str, target: str, key: str | None = None, aliases: Sequence[str] = ()
) -> Iterator[Example]:
    text, target = text.strip(), target.strip()
    others = tuple(dict.fromkeys(each for alias in aliases if (each := alias.strip()) and each != target))
    if text and target:
        yield Example(text, target, normalise(text if key is None else key), aliases=others)


def _choose(
    text: str, choices: Sequence[str], label: int, key: str | None = None, ending: str = ""
) -> Iterator[Example]:
    """A multiple-choice example; none where the label is unknown or the options are not distinct."""
    text, options = text.strip(), tuple(choice.strip() for choice in choices)
    if text and 0 <= label < len(options) and len({*options}) == len(options) > 1:
        yield Example(text, options[label], normalise(text if key is None else key), options, ending.rstrip())


def _open_question(row: Row, field: str) -> Iterator[Example]:
    if row[field]:
        yield from _example(row["question"], row[field][0], aliases=row[field])


def _trivia_qa(row: Row) -> Iterator[Example]:
    if row["answer"]["value"] != "<unk>":
        answer = row["answer"]
        yield from _example(row["question"], answer["value"], aliases=answer["aliases"])


def _turns(passage: str, questions: Sequence[str], answers: Sequence[str]) -> Iterator[Example]:
    """One example a question, the passage and the earlier turns before it."""
    text = f"{passage.strip()}\n"
    for question, answer in zip(questions, answers, strict=False):
        text += f"\nQ: {question.strip()}\n\nA:"
        yield from _example(text, answer, passage)
        text += f" {answer.strip()}\n"


def _coqa(row: Row) -> Iterator[Example]:
    return _turns(row["story"], row["questions"], row["answers"]["input_text"])


def _quac(row: Row) -> Iterator[Example]:
    """One turn of a dialogue: the row does not hold the earlier ones."""
    passage = f"TITLE: {row['title']}\nSECTION: {row['section_title']}\nPARAGRAPH: {row['context']}"
    text = f"{passage}\n\nQ: {row['question'].strip()}\n\nA:"
    yield from _example(text, row["orig_answer"]["text"], row["context"], row["answers"]["text"])


def _squad(row: Row) -> Iterator[Example]:
    answers = row["answers"]["text"]
    title = row["title"].replace("_", " ")
    text = f"Title: {title}\n\nBackground: {row['context']}\n\nQ: {row['question'].strip()}\n\nA:"
    yield from _example(text, answers[0] if answers else _UNANSWERABLE, row["context"], answers)


def _drop(row: Row) -> Iterator[Example]:
    text = f"Passage: {row['passage']}\nQuestion: {row['question']}\nAnswer:"
    yield from _example(text, row["answer"], row["passage"], row["validated_answers"])


def _race(row: Row) -> Iterator[Example]:
    """The questions on an article, the earlier ones with their answers before each."""
    text = f"Article:\n{row['article'].strip()}\n"
    for question, options, answer in zip(row["questions"], row["options"], row["answers"], strict=False):
        text += f"\nQ: {question.strip()}\n\nA:"
        label = "ABCD".find(answer) if answer else -1
        yield from _choose(text, options, label, row["article"])
        text += f" {options[label].strip()}\n" if 0 <= label < len(options) else "\n"


def _lambada(row: Row) -> Iterator[Example]:
    text, _, last = row["passage"].strip().rpartition(" ")
    yield from _example(text, last)


def _hellaswag(row: Row) -> Iterator[Example]:
    yield from _choose(f"{row['activity_label']}: {row['context']}", row["endings"], row["label"])


def _piqa(row: Row) -> Iterator[Example]:
    yield from _choose(row["goal"], (row["sol1"], row["sol2"]), row["label"])


def _winogrande(row: Row) -> Iterator[Example]:
    """Both sentences from the gap on; the twin of a sentence has the same options and so the same key."""
    options = (row["option1"], row["option2"])
    text, gap, rest = row["sentence"].partition("_")
    if gap:
        choices = [option + rest for option in options]
        yield from _choose(text, choices, row["label"], " ".join(options), rest)


def _wsc273(row: Row) -> Iterator[Example]:
    options = (row["option1"], row["option2"])
    text, rest = row["text"][: row["pronoun_start"]], row["text"][row["pronoun_end"] :]
    yield from _choose(text, [option + rest for option in options], row["label"], " ".join(options), rest)


def _arc(row: Row) -> Iterator[Example]:
    labels = row["choices"]["label"]
    gold = labels.index(row["answerKey"]) if row["answerKey"] in labels else -1
    yield from _choose(f"Question: {row['question']}\nAnswer:", row["choices"]["text"], gold, row["question"])


def _openbookqa(row: Row) -> Iterator[Example]:
    question = row["question"]
    yield from _choose(question["stem"], [question[f"choice_{x}"] for x in "ABCD"], row["answerKey"])


def _story_cloze(row: Row) -> Iterator[Example]:
    yield from _choose(row["context"], row["endings"], row["label"])


def _bool_q(row: Row) -> Iterator[Example]:
    answer = row["label"] if "label" in row else int(row["answer"])
    question = row["question"].strip().removesuffix("?")
    text = f"{row['passage']}\nquestion: {question}?\nanswer:"
    yield from _choose(text, _GUESSES, answer, row["passage"])


def _copa(row: Row) -> Iterator[Example]:
    link = "because" if row["question"] == "cause" else "therefore"
    choices = [row[field][:1].lower() + row[field][1:] for field in ("choice1", "choice2")]
    text = row["premise"].strip().removesuffix(".")
    yield from _choose(f"{text} {link}" if text else "", choices, row["label"])


def _multirc(row: Row) -> Iterator[Example]:
    text = f"READING COMPREHENSION ANSWER KEY\n\n{row['paragraph']}\n\n{row['question']}\n-"
    if row["answer"].strip():
        choices = [f"[{truth}] {row['answer'].strip()}" for truth in ("False", "True")]
        yield from _choose(text, choices, row["label"], row["paragraph"])


def _record(row: Row) -> Iterator[Example]:
    """Every entity in the place of the query's placeholder; the first that is right is the answer."""
    entities = list(dict.fromkeys(entity.strip() for entity in row["entities"]))
    right = [entities.index(answer.strip()) for answer in row["answers"] if answer.strip() in entities]
    if right and "@placeholder" in row["query"]:
        text = row["passage"].replace("@highlight", "-")
        choices = [row["query"].replace("@placeholder", entity) for entity in entities]
        yield from _choose(f"{text}\n-", choices, right[0], row["passage"])


def _wic(row: Row) -> Iterator[Example]:
    question = f"question: Is the word '{row['word']}' used in the same way in the two sentences above?"
    sentences = f"{row['sentence1']}\n{row['sentence2']}"
    yield from _choose(f"{sentences}\n{question}\nanswer:", _GUESSES, row["label"], sentences)


def _wsc(row: Row) -> Iterator[Example]:
    """Rows whose noun is the right one; the others do not tell an answer."""
    words, pronoun, place = row["text"].split(), row["span2_text"], row["span2_index"]
    if row["label"] == 1 and 0 <= place < len(words):
        words[place] = f"*{words[place]}*"
        question = f'In the passage above, what does the pronoun "*{pronoun}*" refer to?'
        text = f"Passage: {' '.join(words)}\nQuestion: {question}\nAnswer:"
        yield from _example(text, row["span1_text"], row["text"])


def _pair(first: str, second: str, labels: Sequence[str], form: str, row: Row) -> Iterator[Example]:
    """Two texts, written by a form, and a label; `{0}` and `{1}` are the texts."""
    texts = row[first].strip(), row[second].strip()
    if all(texts):
        yield from _choose(form.format(*texts), labels, row["label"], " ".join(texts))


def _single(labels: Sequence[str], form: str, row: Row) -> Iterator[Example]:
    if row["sentence"].strip():
        yield from _choose(form.format(row["sentence"].strip()), labels, row["label"], row["sentence"])


def _equals(language: str) -> Template:
    """Both sentences with "=" between; a sentence alone is asked for in words."""
    asked = f"Q: What is the {language} translation of "
    alone = Template(input_prefix=asked, separator=" A:", target_prefix=" ", delimiter="\n")
    return Template(separator=" =", target_prefix=" ", delimiter="\n", alone=alone)


def _translation(source: str, target: str, row: Row) -> Iterator[Example]:
    yield from _example(row[source], row[target])


def _gsm8k(reasoned: bool, row: Row) -> Iterator[Example]:
    """The last number, or the solution that leads to it."""
    _, mark, number = row["answer"].partition("####")
    if mark:
        answer = row["answer"] if reasoned else number
        yield from _example(f"Question: {row['question']}\nAnswer:", answer, row["question"])


def _pairs(first: str, second: str, labels: Sequence[str], form: str) -> Reader:
    return functools.partial(_pair, first, second, labels, form)


def _questions(field: str) -> Reader:
    return functools.partial(_open_question, field=field)


_ENTAILMENT = "{0}\nquestion: {1} True or False?\nanswer:"
_NEITHER = "{0}\nquestion: {1} True, False, or Neither?\nanswer:"
_ANLI = _pairs(
    "context",
    "hypothesis",
    ("True", "Neither", "False"),
    "{0}\nQuestion: {1} True, False, or Neither?\nAnswer:",
)
_SAME = "{0}\n{1}\nquestion: Do both mean the same?\nanswer:"

TFDS_TASKS: dict[str, Reading] = {
    "natural_questions": Reading(
        "natural_questions_open", _questions("answer"), _QUESTION, answer_rule="squad"
    ),
    "trivia_qa": Reading("trivia_qa/unfiltered.nocontext", _trivia_qa, _QUESTION, answer_rule="squad"),
    "web_questions": Reading(
        "web_questions", _questions("answers"), _QUESTION, test="test", answer_rule="squad"
    ),
    "coqa": Reading("coqa", _coqa, test="test", answer_rule="squad"),
    "quac": Reading("quac", _quac, answer_rule="squad"),
    "squad_v2": Reading("squad/v2.0", _squad, answer_rule="squad"),
    "drop": Reading("drop", _drop, test="dev", answer_rule="squad"),
    "race_high": Reading("race/high", _race, test="test", option_rule="unconditional", answer_context="A:"),
    "race_middle": Reading(
        "race/middle", _race, test="test", option_rule="unconditional", answer_context="A:"
    ),
    "lambada": Reading(  # its training split is whole novels
        "lambada", _lambada, _BLANK, train="test", test="test", instruction="Fill in blank:"
    ),
    "hellaswag": Reading("hellaswag", _hellaswag),
    "story_cloze": Reading("story_cloze/2016", _story_cloze, train="validation", test="test"),
    "piqa": Reading("piqa", _piqa),
    "winogrande": Reading("winogrande", _winogrande, train="train_xl"),
    "winograd": Reading("wsc273", _wsc273, train="test", test="test"),
    "arc_easy": Reading("ai2_arc/ARC-Easy", _arc, test="test", option_rule="unconditional"),
    "arc_challenge": Reading("ai2_arc/ARC-Challenge", _arc, test="test", option_rule="unconditional"),
    "openbookqa": Reading("openbookqa", _openbookqa, test="test", option_rule="unconditional"),
    "boolq": Reading("bool_q", _bool_q),
    "super_glue_boolq": Reading("super_glue/boolq", _bool_q),
    "super_glue_cb": Reading(
        "super_glue/cb",
        _pairs(
            "premise",
            "hypothesis",
            ("true", "false", "neither"),
            "{0}\nquestion: {1} true, false, or neither?\nanswer:",
        ),
    ),
    "super_glue_copa": Reading("super_glue/copa", _copa),
    "super_glue_multirc": Reading("super_glue/multirc", _multirc),
    "super_glue_record": Reading("super_glue/record", _record),
    "super_glue_rte": Reading(
        "super_glue/rte", _pairs("premise", "hypothesis", ("True", "False"), _ENTAILMENT)
    ),
    "super_glue_wic": Reading("super_glue/wic", _wic),
    "super_glue_wsc": Reading("super_glue/wsc.fixed", _wsc, instruction=_WSC),
    "anli_r1": Reading("anli/r1", _ANLI, test="test"),
    "anli_r2": Reading("anli/r2", _ANLI, test="test"),
    "anli_r3": Reading("anli/r3", _ANLI, test="test"),
    "gsm8k": Reading("gsm8k", functools.partial(_gsm8k, False), test="test"),
    "gsm8k_reasoning": Reading("gsm8k", functools.partial(_gsm8k, True), test="test"),
    "glue_cola": Reading(
        "glue/cola",
        functools.partial(_single, _GUESSES, "{0}\nquestion: Is this sentence acceptable?\nanswer:"),
    ),
    "glue_sst2": Reading(
        "glue/sst2",
        functools.partial(
            _single, ("negative", "positive"), "{0}\nquestion: Is this negative or positive?\nanswer:"
        ),
    ),
    "glue_mrpc": Reading("glue/mrpc", _pairs("sentence1", "sentence2", _GUESSES, _SAME)),
    "glue_qqp": Reading("glue/qqp", _pairs("question1", "question2", _GUESSES, _SAME)),
    "glue_mnli": Reading(
        "glue/mnli",
        _pairs("premise", "hypothesis", ("True", "Neither", "False"), _NEITHER),
        test="validation_matched",
    ),
    "glue_qnli": Reading(
        "glue/qnli",
        _pairs(
            "sentence",
            "question",
            ("yes", "no"),
            "{0}\nquestion: Does this answer the question '{1}'?\nanswer:",
        ),
    ),
    "glue_rte": Reading("glue/rte", _pairs("sentence1", "sentence2", ("True", "False"), _ENTAILMENT)),
    "glue_wnli": Reading("glue/wnli", _pairs("sentence1", "sentence2", ("False", "True"), _ENTAILMENT)),
}
_LANGUAGES = {"en": "English", "fr": "French", "de": "German", "ro": "Romanian"}
_TRANSLATIONS = (("wmt14_translate", "fr"), ("wmt16_translate", "de"), ("wmt16_translate", "ro"))
TFDS_TASKS |= {
    f"{builder.removesuffix('_translate')}_{source}_{target}": Reading(
        f"{builder}/{language}-en",
        functools.partial(_translation, source, target),
        _equals(_LANGUAGES[target]),
        test="test",
    )
    for builder, language in _TRANSLATIONS
    for source, target in ((language, "en"), ("en", language))
}

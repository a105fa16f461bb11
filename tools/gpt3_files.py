"""Real files of the GPT-3 paper's tasks, as they stand in public repositories, put into forms of `FileTasks`.

Files that have such a form are taken as they are. The others go through the TFDS reader of their task, each
object put into the form of a TFDS row, so that the prompt is the paper's.
"""

import bz2
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from icl.tasks.sources import read_text
from icl.tasks.tfds_readers import TFDS_TASKS
from icl.tasks.tfds_rows import TOGETHER


@dataclasses.dataclass(frozen=True)
class Real:
    """A real file (or several) of a task.

    `read` gives what `FileTasks` shall read, `settings` go beyond what the task's own template says; `why`
    tells of what the file lacks.
    """

    files: str
    read: Callable[[Sequence[Path]], Iterator[Mapping[str, Any]]]
    why: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def write_files(data: Path, real: Mapping[str, Real], folder: Path) -> dict[str, dict[str, Any]]:
    """Writes the files that `FileTasks` shall read; returns what the evaluation must bind."""
    folder.mkdir()
    entries = {}
    for name, each in real.items():
        paths = [path for part in each.files.split(" + ") for path in sorted(data.glob(f"{part}*"))[:1]]
        if not paths:
            print(f"{name}: no {data / each.files}", file=sys.stderr)
            continue
        path = folder / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in each.read(paths)), encoding="utf-8")
        own = template_settings(name) if name in TFDS_TASKS else {}
        shared = {"glob": str(path), "pool": "shared", "unfit": "skip"}
        entries[f"{name}/files"] = {**shared, **own, **each.settings}
    return entries


def template_settings(name: str) -> dict[str, Any]:
    """What the table of TFDS tasks says, as settings of files; a query alone has no other form there."""
    reading = TFDS_TASKS[name]
    return {
        "input_prefix": reading.template.input_prefix,
        "separator": reading.template.separator,
        "delimiter": reading.template.delimiter,
        "answers": reading.answer_rule,
        "option_rule": reading.option_rule,
        "answer_context": reading.answer_context,
        "corpus_metrics": reading.corpus_metrics,
        "instructions": {name: reading.instruction} if reading.instruction else None,
    }


def lines_of(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The objects of JSONL files, as they are."""
    for path in paths:
        yield from (json.loads(line) for line in read_text(path).split("\n") if line.strip())


def as_read(name: str, row: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Callable[..., Iterator[Any]]:
    """Reads JSONL by the TFDS reader of a task, each object put into the form of a TFDS row."""

    def read(paths: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
        for each in lines_of(paths):
            yield from examples_of(name, row(each))

    return read


def examples_of(name: str, row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a TFDS reader makes of a row, in the forms that files have."""
    for example in TFDS_TASKS[name].read(row):
        if example.choices:
            gold = example.choices.index(example.target)
            asked = {"query": example.input, "choices": example.choices, "gold": gold}
            yield {**asked, **({"group": example.group} if example.group else {})}
        else:
            yield {"input": example.input, "output": example.target, "aliases": example.aliases}


def hellaswag(paths: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    """Six lines an item: context, number of the right ending, four endings."""
    lines = bz2.decompress(paths[0].read_bytes()).decode().split("\n")
    for start in range(0, len(lines) - 5, 6):
        text, gold, *endings = lines[start : start + 6]
        yield {"query": text, "choices": endings, "gold": int(gold)}


def web_questions(paths: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    """Lists of objects with names of their own."""
    for path in paths:
        for row in json.loads(read_text(path)):
            if any(answer.strip() for answer in row["answers"]):
                yield {"question": row["qText"], "answers": [a for a in row["answers"] if a.strip()]}


def trivia_qa(paths: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    """Contexts that hold the words around the question."""
    for row in lines_of(paths):
        question = row["context"].removeprefix("Question: ").removesuffix("\nAnswer:")
        yield {"question": question, "answer": row["answer"], "aliases": row["aliases"]}


def piqa(paths: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    """Goals, and labels in a file of their own."""
    for row, label in zip(lines_of(paths[:1]), read_text(paths[1]).split(), strict=True):
        yield from examples_of("piqa", {**row, "label": int(label)})


def boolq(row: dict[str, Any]) -> Mapping[str, Any]:
    """A query that holds passage and question."""
    passage, _, question = row["query"].removeprefix("Passage: ").rpartition("\nQuestion: ")
    return {"passage": passage, "question": question, "label": row["gold"]}


def copa(paths: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    """Premises whose link has other words than the paper's."""
    for row in lines_of(paths):
        yield {**row, "query": row["query"].replace(", therefore", " so").replace(", because", " because")}


def arc(paths: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    """Questions without the words that ask for the answer."""
    yield from ({**row, "query": f"{row['query']}\nAnswer:"} for row in lines_of(paths))


def multirc(row: dict[str, Any]) -> Mapping[str, Any]:
    """Passages with all their questions."""
    found = [
        {"paragraph": row["passage"]["text"], "question": question["question"], "answer": answer["text"],
         "label": answer["label"]}
        for question in row["passage"]["questions"]
        for answer in question["answers"]
    ]  # fmt: skip
    return {TOGETHER: found}


def record(row: dict[str, Any]) -> Mapping[str, Any]:
    """Passages whose entities are places in the text; the first of their queries."""
    text = row["passage"]["text"]
    entities = sorted({text[entity["start"] : entity["end"] + 1] for entity in row["passage"]["entities"]})
    query = row["qas"][0]
    answers = [answer["text"] for answer in query["answers"]]
    return {"passage": text, "query": query["query"], "entities": entities, "answers": answers}


def aligned(name: str, source: str, target: str) -> Callable[[Sequence[Path]], Iterator[Mapping[str, Any]]]:
    """Two files whose lines are translations of each other."""

    def read(paths: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
        for one, two in zip(*(read_text(path).rstrip("\n").split("\n") for path in paths), strict=True):
            yield from examples_of(name, {source: one, target: two})

    return read


_UNSCRAMBLE = "Please unscramble the letters into a word, and write that word:"
_FOUNDRY = "llm_foundry"
_TRAIN = "32 training examples, as the development set is not here"
_HALF = "half of the file is held back"
_CB = {"entailment": 0, "contradiction": 1, "neutral": 2}
_SUMS = (
    "two_digit_addition", "two_digit_subtraction", "three_digit_addition", "three_digit_subtraction",
    "four_digit_addition", "four_digit_subtraction", "five_digit_addition", "five_digit_subtraction",
    "two_digit_multiplication", "single_digit_three_ops",
)  # fmt: skip
REAL: dict[str, Real] = {
    "lambada": Real(f"{_FOUNDRY}/lambada_openai", lines_of),
    "hellaswag": Real("hellaswag/hellaswag_val_full", hellaswag),
    "natural_questions": Real("qa/natural_questions/NQ-open.dev", lines_of),
    "web_questions": Real(
        "qa/web_questions/trainmodel + qa/web_questions/val + qa/web_questions/devtest",
        web_questions,
        "the training set, as the test set is held back",
    ),
    "trivia_qa": Real(f"{_FOUNDRY}/triviaqa_sm_sub", trivia_qa, "a subset"),
    "winograd": Real(f"{_FOUNDRY}/winograd_wsc", lines_of),
    "winogrande": Real(f"{_FOUNDRY}/winogrande", lines_of),
    "piqa": Real("piqa/valid.jsonl + piqa/valid-labels", piqa),
    "arc_easy": Real(f"{_FOUNDRY}/arc_easy", arc),
    "openbookqa": Real(f"{_FOUNDRY}/openbook_qa", lines_of),
    "wmt16_de_en": Real(
        "newstest2021/newstest2021.de-en.src + newstest2021/newstest2021.de-en.ref.A",
        aligned("wmt16_de_en", "de", "en"),
        "the news of 2021",
    ),
    "wmt16_en_de": Real(
        "newstest2021/newstest2021.en-de.src + newstest2021/newstest2021.en-de.ref.A",
        aligned("wmt16_en_de", "en", "de"),
        "the news of 2021",
    ),
    "super_glue_boolq": Real(f"{_FOUNDRY}/boolq", as_read("super_glue_boolq", boolq)),
    "super_glue_copa": Real(f"{_FOUNDRY}/copa", copa),
    "super_glue_cb": Real(
        "few_shot_learning/cb/val", as_read("super_glue_cb", lambda row: {**row, "label": _CB[row["label"]]})
    ),
    "super_glue_rte": Real(
        "few_shot_learning/rte/val",
        as_read("super_glue_rte", lambda row: {**row, "label": int(row["label"] != "entailment")}),
    ),
    "super_glue_wic": Real(
        "fewglue/WiC/train",
        as_read("super_glue_wic", lambda row: {**row, "label": int(row["label"])}),
        _TRAIN,
    ),
    "super_glue_wsc": Real(
        "fewglue/WSC/train",
        as_read("super_glue_wsc", lambda row: {**row, **row["target"], "label": int(row["label"])}),
        _TRAIN,
    ),
    "super_glue_multirc": Real("fewglue/MultiRC/train", as_read("super_glue_multirc", multirc), _TRAIN),
    "super_glue_record": Real("fewglue/ReCoRD/train", as_read("super_glue_record", record), _TRAIN),
    **{name: Real(f"gpt3/{name}", lines_of, _HALF) for name in _SUMS},
    **{
        name: Real(
            f"gpt3/{name}", lines_of, _HALF, {"instructions": {name: _UNSCRAMBLE}, "exclusion_key": "output"}
        )
        for name in (
            "cycle_letters_in_word", "mid_word_1_anagrams", "mid_word_2_anagrams", "random_insertion_in_word",
            "reversed_words",
        )
    },
}  # fmt: skip

"""Writes the synthetic tasks of the GPT-3 paper for the evaluation harness: documents, and its task files.

    python -m icl.interop.lm_eval.tasks --output_dir DIR [--data FOLDER] [--queries 2000]
    python -m icl.interop.lm_eval --include_path DIR --tasks icl_gpt3_synthetic --model_args checkpoint=RUN

Ten tasks of arithmetic and five of scrambled words (arXiv 2005.14165, section 3.9), each with documents to
test and others to show: no operands or word of the one occur in the other, and every task names its few-shot
split, without which the harness draws demonstrations from the tested documents. Prompts, numbers of
demonstrations (50 and 100) and the text at which an answer ends are the paper's; `--num_fewshot` sets another
number. Documents are generated, those to test from what our training holds out by default; with `--data` they
are those of the paper's own files (`data/` of openai/gpt-3), a quarter of which is kept to be shown.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from icl import app
from icl.data.keys import fraction, generator
from icl.errors import InputError, check_is_no_url
from icl.tasks import Arithmetic, Example, Scrambles
from icl.tasks.battery import BatteryTask
from icl.tasks.sources import read_text

PREFIX = "icl_gpt3_"
_SHOWN_SHARE = 0.25
"""Of the paper's own files, the share of the questions that are kept to be shown."""
_GROUPS = ("arithmetic", "scrambles")
_NUM_FEWSHOT = {"arithmetic": 50, "scrambles": 100}
_MAX_TOKENS = {"arithmetic": 16, "scrambles": 40}
"""Room for every answer with what ends it, in bytes; tokens are no shorter."""

Document = dict[str, str]


class Written(NamedTuple):
    """A task with the documents to test and to show."""

    task: BatteryTask
    family: str
    tested: list[Document]
    shown: list[Document]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--data", type=Path, help="folder of the paper's own files, as .jsonl or .jsonl.gz")
    parser.add_argument("--queries", type=int, default=2000, help="documents to test, a task, at most")
    parser.add_argument("--demonstrations", type=int, default=2000, help="documents to show, a task")
    parser.add_argument(
        "--held_out_share", type=float, help="of operands and words; as in training by default"
    )
    settings = parser.parse_args(arguments)
    for name in ("queries", "demonstrations"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} {getattr(settings, name)}: expected a positive number")
    _check_is_free(settings.output_dir)
    own = {} if settings.held_out_share is None else {"held_out_share": settings.held_out_share}
    families = {"arithmetic": Arithmetic(**own).build(""), "scrambles": Scrambles(**own).build("")}
    tasks = [(family, task) for family, built in families.items() for task in built]
    if settings.data is None:
        found = [_generated(*each, settings.queries, settings.demonstrations) for each in tasks]
    else:
        found = list(_read(settings.data, tasks, settings.queries))
    write(settings.output_dir, found)
    for each in found:
        print(f"{PREFIX}{each.task.name}: {len(each.tested):,} to test, {len(each.shown):,} to show")
    return 0


def write(folder: Path, tasks: Sequence[Written]) -> None:
    """Writes the documents and task files of all tasks, and the groups that they make."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in tasks:
        for split, documents in (("test", each.tested), ("train", each.shown)):
            lines = (json.dumps(document) + "\n" for document in documents)
            (folder / f"{each.task.name}.{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        _write_yaml(folder / f"{each.task.name}.yaml", task_config(each, folder.absolute()))
    groups = {family: [PREFIX + t.task.name for t in tasks if t.family == family] for family in _GROUPS}
    groups = {family: members for family, members in groups.items() if members}
    for family, members in groups.items():
        _write_yaml(folder / f"_{family}.yaml", _group(family, members))
    _write_yaml(folder / "_synthetic.yaml", _group("synthetic", [PREFIX + family for family in groups]))


def task_config(task: Written, folder: Path) -> dict[str, Any]:
    """The harness's description of a task whose documents lie in a folder."""
    template, name = task.task.template, task.task.name
    return {
        "task": f"{PREFIX}{name}",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {split: str(folder / f"{name}.{split}.jsonl") for split in ("train", "test")}
        },
        "training_split": "train",
        "fewshot_split": "train",
        "test_split": "test",
        "num_fewshot": _NUM_FEWSHOT[task.family],
        "description": template.instruction(task.task.instruction),
        "output_type": "generate_until",
        "doc_to_text": "{{context.strip()}}",
        "doc_to_target": "{{completion.strip()}}",
        "target_delimiter": template.target_prefix,
        "fewshot_delimiter": template.delimiter,
        "generation_kwargs": {
            "until": [template.delimiter],
            "max_gen_toks": _MAX_TOKENS[task.family],
            "do_sample": False,
        },
        "filter_list": [
            {"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }


def _group(name: str, members: Sequence[str]) -> dict[str, Any]:
    mean = {"metric": "exact_match", "aggregation": "mean", "weight_by_size": False, "filter_list": "none"}
    return {
        "group": PREFIX + name,
        "task": list(members),
        "aggregate_metric_list": [mean],
        "metadata": {"version": 1.0},
    }


def _check_is_free(folder: Path) -> None:
    check_is_no_url(folder, "--output_dir")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--output_dir {folder}: expected a new or empty folder")


def _generated(family: str, task: BatteryTask, queries: int, demonstrations: int) -> Written:
    """Documents from what training holds out, and others to show from what it sees."""
    tested = [query.example for query in itertools.islice(task.queries("held_out"), queries)]
    keys = {_key(task, example) for example in tested}
    shown: dict[str, Example] = {}
    drawn = task.instance("train", 0).demonstrations(generator("harness", task.name))
    for example in itertools.islice(drawn, 20 * demonstrations):  # short sums soon repeat
        if len(shown) == demonstrations:
            break
        if _key(task, example) not in keys:
            shown.setdefault(example.input, example)
    documents = ([_document(task, example) for example in part] for part in (tested, shown.values()))
    return Written(task, family, *documents)


def _document(task: BatteryTask, example: Example) -> Document:
    """An example in the form of the paper's files: what delimits examples stands before each."""
    template = task.template
    return {
        "context": template.delimiter + template.context(example),
        "completion": template.completion(example),
    }


def _example(task: BatteryTask, document: Document) -> Example:
    """The example that a document in that form holds."""
    template = task.template
    text = document["context"].strip().removeprefix(template.input_prefix).removesuffix(template.separator)
    return Example(text, document["completion"].strip())


def _read(folder: Path, tasks: Sequence[tuple[str, BatteryTask]], queries: int) -> Iterator[Written]:
    """The tasks of which the folder has a file, its documents divided by what they ask."""
    paths = {task.name: path for _, task in tasks for path in sorted(folder.glob(f"{task.name}*"))[:1]}
    missing = [task.name for _, task in tasks if task.name not in paths]
    if not paths:
        raise InputError(f"--data {folder}: holds none of the paper's files; expected data/ of openai/gpt-3")
    if missing:
        print(f"left out, as {folder} has no such file: {', '.join(missing)}", file=sys.stderr)
    for family, task in tasks:
        if task.name not in paths:
            continue
        path = paths[task.name]
        parts: tuple[list[Document], list[Document]] = ([], [])
        for document in _documents(path):
            key = _key(task, _example(task, document))
            parts[fraction("shown", key) < _SHOWN_SHARE].append(document)
        if not all(parts):
            raise InputError(f"{path}: holds too few documents to test some and show others")
        yield Written(task, family, parts[0][:queries], parts[1])


def _documents(path: Path) -> Iterator[Document]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        fields = ("context", "completion")
        if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in fields):
            raise InputError(f'{path}, line {number}: expected an object of "context" and "completion"')
        yield {field: row[field] for field in fields}


def _key(task: BatteryTask, example: Example) -> str:
    """What tells questions apart: the word behind a scramble; operands in either order where they commute."""
    names = task.identities(example)
    return names[0] if task.instruction else min(names)


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Writes nested mappings and lists; strings as JSON has them, which YAML reads alike."""
    path.write_text("\n".join(_yaml_lines(content)) + "\n", encoding="utf-8")


def _yaml_lines(content: dict[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from _yaml_lines(value, f"{indent}  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{indent}{name}:"
            for item in value:
                first, *rest = _yaml_lines(item, f"{indent}    ")
                yield f"{indent}  - {first.strip()}"
                yield from rest
        else:
            yield f"{indent}{name}: {json.dumps(value)}"


if __name__ == "__main__":
    app.prepare()
    sys.exit(app.guarded(main))

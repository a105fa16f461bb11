"""The paper's synthetic tasks as the harness reads them: prompts are ours, no tested item is ever shown."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

import datasets
import lm_eval.__main__
from lm_eval.tasks import TaskManager

from icl.errors import InputError
from icl.evaluation.prompts import prompt_text
from icl.interop.lm_eval import __main__ as command
from icl.interop.lm_eval import tasks as writer
from icl.tasks import Arithmetic, Example, Scrambles
from icl.tasks.arithmetic import PAPER
from icl.tasks.battery import BatteryTask
from icl.tasks.scrambles import SCRAMBLES

TASKS: dict[str, BatteryTask] = {
    task.name: task for task in (*Arithmetic().build(""), *Scrambles().build(""))
}


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def example(document: dict[str, str]) -> Example:
    """What a document of the paper's form asks, without the words around it, and its answer."""
    text = document["context"].strip().removeprefix("Q:").removesuffix("A:").removesuffix("=").strip()
    return Example(text, document["completion"].strip())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "tasks"
    assert writer.main(["--output_dir", str(folder), "--queries", "30", "--demonstrations", "120"]) == 0
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        yield manager.load(["icl_gpt3_synthetic"])


def test_the_group_holds_the_papers_fifteen_tasks_with_their_numbers(loaded: dict[str, Any]) -> None:
    assert set(loaded["tasks"]) == {f"icl_gpt3_{name}" for name in (*PAPER, *SCRAMBLES)}
    for name, task in loaded["tasks"].items():
        config = task.config
        assert config.fewshot_split == config.training_split == "train" and config.test_split == "test"
        assert config.num_fewshot == (100 if name.removeprefix("icl_gpt3_") in SCRAMBLES else 50)


@pytest.mark.parametrize("name", ["two_digit_subtraction", "single_digit_three_ops", "reversed_words"])
def test_the_harness_prompts_with_our_prompts(name: str, loaded: dict[str, Any], folder: Path) -> None:
    task, ours = loaded["tasks"][f"icl_gpt3_{name}"], TASKS[name]
    template = ours.template
    shown, tested = read(folder / f"{name}.train.jsonl")[:3], read(folder / f"{name}.test.jsonl")[0]
    task.sampler.sample = lambda n, eval_doc=None: shown[:n]
    for number in (0, 3):
        examples = [example(document) for document in shown[:number]]
        wanted = prompt_text(template, ours.instruction, examples, example(tested))
        assert task.fewshot_context(tested, num_fewshot=number) == wanted
    written = task.config.target_delimiter + task.doc_to_target(tested)
    assert written == template.completion(example(tested))
    assert task.config.generation_kwargs["until"] == [template.delimiter]


@pytest.mark.parametrize("name", TASKS)
def test_no_tested_question_is_shown_in_any_form(name: str, folder: Path) -> None:
    task = TASKS[name]
    names: dict[str, set[str]] = {}
    for split in ("train", "test"):
        documents = read(folder / f"{name}.{split}.jsonl")
        assert len({document["context"] for document in documents}) == len(documents) >= 30
        names[split] = {name for document in documents for name in task.identities(example(document))}
    assert names["train"].isdisjoint(names["test"])


def test_the_papers_own_files_are_divided_by_what_they_ask(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    sums = [(a, b) for a in range(12) for b in range(12)]
    rows = [{"context": f"\n\nQ: What is {a} plus {b}?\n\nA:", "completion": f" {a + b}"} for a, b in sums]
    (data / "two_digit_addition.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    writer.main(["--output_dir", str(out), "--data", str(data), "--queries", "1000"])
    tested, shown = (read(out / f"two_digit_addition.{split}.jsonl") for split in ("test", "train"))
    assert sorted(map(str, tested + shown)) == sorted(map(str, rows)) and len(shown) > 20
    operands = [
        {frozenset(d["context"].split("What is ")[1].split("?")[0].split(" plus ")) for d in part}
        for part in (tested, shown)
    ]
    assert operands[0].isdisjoint(operands[1])
    assert {path.name for path in out.glob("*.yaml")} == {
        "two_digit_addition.yaml",
        "_arithmetic.yaml",
        "_synthetic.yaml",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "holds none of the paper's files"),
        ("{", "line 1: expected an object"),
        ('{"context": "a", "completion": 3}', "line 1: expected an object"),
        ('{"context": "\\n\\nQ: What is 1 plus 2?\\n\\nA:", "completion": " 3"}', "too few documents"),
    ],
)
def test_other_files_are_refused(text: str | None, says: str, tmp_path: Path) -> None:
    if text:
        (tmp_path / "two_digit_addition.jsonl").write_text(text)
    with pytest.raises(InputError, match=says):
        writer.main(["--output_dir", str(tmp_path / "out"), "--data", str(tmp_path)])
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(folder: Path) -> None:
    with pytest.raises(InputError, match="expected a new or empty folder"):
        writer.main(["--output_dir", str(folder)])


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (["--tasks", "a"], ["run", "--batch_size", "auto", "--model", "icl", "--tasks", "a"]),
        (["run", "-M", "hf", "-b", "2", "-t", "a"], ["run", "-M", "hf", "-b", "2", "-t", "a"]),
        (["--model=hf", "--batch_size=2"], ["run", "--model=hf", "--batch_size=2"]),
        (["--config", "a.yaml"], ["run", "--config", "a.yaml"]),
        (["ls", "tasks"], ["ls", "tasks"]),
    ],
)
def test_the_command_adds_our_model_and_batches(given: list[str], passed: list[str]) -> None:
    assert command.with_defaults(given) == passed


def test_what_the_harness_refuses_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icl.compilation_cache.use_compilation_cache", lambda: None)
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.setenv("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    with pytest.raises(InputError, match="Specify --output_path"):
        command.main(["--tasks", "nothing", "--log_samples"])
    with pytest.raises(SystemExit, match="2"):
        command.main(["--no_such_flag"])

    def fails() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(lm_eval.__main__, "cli_evaluate", fails)
    with pytest.raises(ValueError, match="a bug") as caught:
        command.main(["--tasks", "nothing"])
    assert not isinstance(caught.value, InputError)

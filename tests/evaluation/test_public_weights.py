"""A Hugging Face folder is evaluated as it is: on a mesh and off it, and as the checkpoint it imports to."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from icl.evaluation.config import EvalConfig
from icl.evaluation.records import read_records
from icl.evaluation.runner import evaluate
from icl.interop.huggingface import import_folder, open_folder
from icl.parallel import MeshConfig
from tests.interop.folders import LLAMA, NEOX, make_folder

CONFIG = EvalConfig(ks=(0, 2), seeds=1, queries=3, max_new_tokens=4, sample_prompts=3)


def tasks(folder: Path) -> dict[str, Any]:
    """A task of generated answers and one of options."""
    examples = [{"input": f"{n} plus {n + 1}", "output": str(2 * n + 1)} for n in range(40)]
    choices = [{"query": f"Is {n} even?", "choices": ["yes", "no"], "gold": n % 2} for n in range(40)]
    for name, rows in (("sum", examples), ("even", choices)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"files": {"glob": str(folder / "*.jsonl")}}


def make(folder: Path, described: dict[str, Any]) -> str:
    """A folder of a longer context; its path as a checkpoint."""
    make_folder(folder / "public", described | {"max_position_embeddings": 96})
    return f"hf:{folder / 'public'}"


def answers(folder: Path) -> list[dict[str, Any]]:
    """What matters of all records."""
    found = []
    for path in sorted((folder / "records").iterdir()):
        for record in read_records(path):
            fields = dataclasses.asdict(record)
            kept = ("task", "query", "k", "prompt", "prompt_tokens", "prediction")
            likelihood = {"likelihood": fields["answer_log_likelihood"]}
            found.append({name: fields[name] for name in kept} | likelihood)
    return sorted(found, key=lambda row: (row["task"], row["query"], row["k"]))


def test_a_folder_and_its_import_give_the_same_answers(tmp_path: Path) -> None:
    public = make(tmp_path, LLAMA)
    import_folder(open_folder(public), tmp_path / "run")
    asked: dict[str, Any] = {"overrides": tasks(tmp_path)}
    evaluate([public], CONFIG, tmp_path / "a", **asked)
    evaluate([tmp_path / "run"], CONFIG, tmp_path / "b", **asked)
    one, other = answers(tmp_path / "a"), answers(tmp_path / "b")
    assert len(one) == 2 * 3 * 2 and one == other
    tokenizer = open_folder(public).tokenizer
    assert tokenizer.prompt_start == (1,)
    assert all(row["prompt_tokens"] == 1 + len(tokenizer.encode(row["prompt"])) for row in one)
    assert (tmp_path / "a" / "report.html").read_text().count("unknown") >= 2


def test_a_mesh_gives_the_same_answers_with_nothing_before_a_prompt(tmp_path: Path) -> None:
    public = make(tmp_path, NEOX)
    asked: dict[str, Any] = {"overrides": tasks(tmp_path)}
    evaluate([public], CONFIG, tmp_path / "a", **asked)
    evaluate([public], CONFIG, tmp_path / "b", mesh=MeshConfig(data=2, fsdp=2, tensor=2), **asked)
    one, other = answers(tmp_path / "a"), answers(tmp_path / "b")
    for mine, theirs in zip(one, other, strict=True):
        assert mine.pop("likelihood") == pytest.approx(theirs.pop("likelihood"), abs=2e-4)
        assert mine == theirs
    tokenizer = open_folder(public).tokenizer
    assert all(row["prompt_tokens"] == len(tokenizer.encode(row["prompt"])) for row in one)

"""From checkpoints to results: traceable, resumable, and never mixed with another evaluation."""

import collections
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icl.errors import InputError
from icl.evaluation import runner
from icl.evaluation.config import EvalConfig
from icl.evaluation.plan import rebuild_prompt
from icl.evaluation.prompts import prompt_hash
from icl.evaluation.records import Record, read_records, write_lines
from icl.evaluation.results import MEAN, METRICS
from icl.evaluation.runner import describe, evaluate
from icl.tasks import FileTasks, WordLabel, build_tasks, rebuild
from icl.tracking.markdown import visible
from icl.training.checkpoints import Checkpoints, read_description
from tests.tracking.events import shown
from tests.training.small import one_device_setup

CONFIG = EvalConfig(ks=(0, 2, 4), queries=14, seeds=2, batch_rows=8, bootstrap=100)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with one checkpoint of fresh parameters."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    setup = one_device_setup(train={"seed": 3})
    with Checkpoints(folder, keep_last=1) as checkpoints:
        checkpoints.save(5, setup.init_state(), setup.description())
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "TRIALS_PER_SHARD", 24)


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "TRIALS_PER_SHARD", 24)
        evaluate([run], CONFIG, folder)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(whole, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def records(folder: Path) -> list[Record]:
    return [record for path in sorted((folder / "records").iterdir()) for record in read_records(path)]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_every_query_is_asked_under_every_condition_once(whole: Path) -> None:
    keys = [(r.task, r.query, r.seed, r.k, r.instruction) for r in records(whole)]
    assert len(keys) == len(set(keys)) == 2 * 14 * 2 * 3 * 2


def test_every_record_leads_back_to_its_prompt(whole: Path, run: Path) -> None:
    families = build_tasks(rebuild(read_description(run).tasks))
    tasks = {task.name: task for family in families.values() for task in family}
    kept = 0
    for record in records(whole)[::5]:
        prompt = rebuild_prompt(record, tasks[record.task])
        assert prompt_hash(prompt) == record.prompt_sha256
        assert record.prompt in (None, prompt)
        kept += record.prompt is not None
    assert kept


def test_every_figure_leads_back_to_its_records(whole: Path) -> None:
    by_condition = collections.defaultdict(list)
    for record in records(whole):
        by_condition[record.task, record.k, record.instruction].append(record)
    checked = 0
    for row in rows(whole):
        if row["checkpoint"] == "tiny" and row["task"] != MEAN and row["slice"] == "all":
            group = by_condition[row["task"], row["k"], row["instruction"]]
            values = [getattr(record, row["metric"]) for record in group]
            assert row["value"] == pytest.approx(np.mean(values), abs=1e-6)
            assert row["scoring"] == METRICS[row["metric"]].replace("answer", "greedy")
            assert (row["n"], row["seeds"]) == (14, 2)
            assert row["ci_low"] <= row["value"] <= row["ci_high"]
            of_seed = [getattr(record, row["metric"]) for record in group if record.seed == 1]
            assert row["seed_values"][1] == pytest.approx(np.mean(of_seed), abs=1e-6)
            checked += 1
    assert checked == 2 * 3 * 2 * len(METRICS.keys() - {"f1"})  # these tasks take answers as they stand


def test_the_mean_over_tasks_weighs_tasks_alike(whole: Path) -> None:
    found = [r for r in rows(whole) if (r["metric"], r["k"], r["slice"]) == ("log_likelihood", 4, "all")]
    for instruction in (False, True):
        values = {r["task"]: r["value"] for r in found if r["instruction"] == instruction}
        assert values.pop(MEAN) == pytest.approx(np.mean(list(values.values())), abs=2e-6)


def test_lookup_tasks_are_split_by_whether_the_query_was_shown(whole: Path) -> None:
    group = [r for r in records(whole) if (r.task, r.k, r.instruction) == ("word_label", 4, False)]
    (row,) = (
        r
        for r in rows(whole)
        if (r["checkpoint"], r["task"], r["k"], r["instruction"], r["metric"], r["slice"])
        == ("tiny", "word_label", 4, False, "token_accuracy", "query_unseen")
    )
    unseen = [r.token_accuracy for r in group if not r.query_seen]
    assert 0 < len(unseen) < len(group)
    assert row["value"] == pytest.approx(np.mean(unseen), abs=1e-6)
    assert {r["slice"] for r in rows(whole) if r["task"] == "cipher"} == {"all"}


def test_trackers_show_the_results_of_the_run(whole: Path) -> None:
    """Every score of a task and K at the checkpoint's step, the figures of the report, and whole prompts."""
    found = shown(whole / "tensorboard" / "tiny")
    scores = {
        (
            5,
            f"exact_match/{r['task']}/{'with' if r['instruction'] else 'without'}_instruction/k{r['k']:02d}",
        ): r
        for r in rows(whole)
        if (r["checkpoint"], r["metric"], r["slice"]) == ("tiny", "exact_match", "all")
    }
    assert len(scores) == 3 * 3 * 2  # two tasks and their mean, K, with and without instruction
    prompts = [row for row in found if row[1].startswith("prompts/")]
    assert {row[:2]: row[2] for row in found if row not in prompts} == {
        place: pytest.approx(r["value"]) for place, r in scores.items()
    }
    kept = {record.task: record.prompt for record in records(whole) if record.prompt is not None}
    assert len(kept) == 2
    for _, name, text in prompts:
        assert visible(kept[name.removeprefix("prompts/")] or "") in text
    assert {name: png for _, name, png in shown(whole / "tensorboard")} == {
        f"figures/{path.stem}": path.read_bytes() for path in whole.glob("*.png")
    }


def test_baselines_stand_once_beside_the_checkpoints(whole: Path) -> None:
    found = [r for r in rows(whole) if r["checkpoint"] == "baseline" and r["task"] == "word_label"]
    scorings = {f"baseline:{rule}" for rule in ("chance", "copy", "majority", "lookup", "ceiling")}
    assert {r["scoring"] for r in found} == scorings
    seen = [r for r in found if (r["scoring"], r["slice"]) == ("baseline:lookup", "query_seen")]
    assert {r["value"] for r in seen if r["metric"] == "exact_match"} == {1.0}
    chance = [r for r in found if r["scoring"] == "baseline:chance"]
    assert len(chance) == 3 * 2
    assert {(r["value"], r["ci_low"], r["interval_method"]) for r in chance} == {(0.1, None, "none")}


def test_a_baseline_that_only_some_tasks_have_has_no_mean(run: Path, tmp_path: Path) -> None:
    """Its mean would be over other tasks than the model's beside it."""
    (tmp_path / "mine.jsonl").write_text(
        "".join(json.dumps({"input": f"word {n}", "output": "ab"[n % 2]}) + "\n" for n in range(40))
    )
    config = EvalConfig(("cipher", "mine"), ks=(0, 1), instruction=(False,), queries=3, seeds=1)
    results = evaluate(
        [run], config, tmp_path / "out", overrides={"files": FileTasks(glob=f"{tmp_path}/mine.jsonl")}
    )
    scorings = {
        task: {row.scoring for row in results if row.task == task and row.checkpoint == "baseline"}
        for task in ("cipher", "mine", MEAN)
    }
    assert "baseline:ceiling" in scorings["cipher"] and "baseline:training_majority" in scorings["mine"]
    assert scorings[MEAN] == scorings["cipher"] & scorings["mine"]
    assert {"baseline:chance", "baseline:lookup"} <= scorings[MEAN]


class _Killed(BaseException):
    """Stands for SIGKILL: nothing in the code under test catches it."""


@pytest.mark.parametrize("shards", [0, 2])
def test_an_evaluation_killed_between_or_in_writes_ends_in_the_same_bytes(
    shards: int, run: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0

    def killed(path: Path, lines: list[Record]) -> None:
        nonlocal written
        if written == shards:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.part").write_bytes(b"half of it")
            raise _Killed
        written += 1
        write_lines(path, lines)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "write_lines", killed)
        with pytest.raises(_Killed):
            evaluate([run], CONFIG, tmp_path)
    assert not (tmp_path / "results.jsonl").exists()
    evaluate([run], CONFIG, tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_finished_evaluation_reads_no_parameters_again(
    run: Path, whole: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("icl.evaluation.subjects.restore_params")
    evaluate([run], CONFIG, copy)
    assert contents(copy) == contents(whole)


@pytest.mark.parametrize("changes", [{"queries": 3}, {"demonstrations": "fixed"}, {"seeds": 1}])
def test_a_folder_of_another_evaluation_is_refused_untouched(
    changes: dict[str, Any], run: Path, copy: Path
) -> None:
    before = contents(copy)
    with pytest.raises(InputError, match=f"another evaluation.*EvalConfig.{next(iter(changes))}"):
        evaluate([run], dataclasses.replace(CONFIG, **changes), copy)
    assert contents(copy) == before


def test_a_damaged_shard_is_refused_by_name(run: Path, copy: Path) -> None:
    shard = sorted((copy / "records").iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(InputError, match=f"{shard.name}: not a shard of records"):
        evaluate([run], CONFIG, copy)


def test_settings_of_a_family_can_be_replaced(run: Path, tmp_path: Path) -> None:
    overrides = {"word_label": {"labels": "xyzuvw"}}
    text = describe([run], CONFIG, tmp_path / "none", overrides=overrides)
    assert not (tmp_path / "none").exists()
    assert re.search(r"^[A-J]{3}>[u-z]$", text, re.MULTILINE)
    assert "336 prompts" in text


def test_whole_families_can_be_replaced_and_added(run: Path, tmp_path: Path) -> None:
    families = {"word_label": WordLabel(labels="xyzuvw"), "second/word_label": WordLabel()}
    text = describe([run], CONFIG, tmp_path, overrides=families)
    settings = {name: dataclasses.asdict(family) for name, family in families.items()}
    assert text == describe([run], CONFIG, tmp_path, overrides=settings)
    assert "second/word_label: 14 queries" in text and "504 prompts" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 9999}, "EvalConfig.max_length = 9999.*at most 64"),
        ({"tasks": ("sorting",)}, "no task 'sorting'"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(
    changes: dict[str, Any], message: str, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate([run], dataclasses.replace(CONFIG, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_checkpoints_get_the_shortest_labels_that_tell_them_apart(run: Path, tmp_path: Path) -> None:
    for seed in ("seed0", "seed1"):
        shutil.copytree(run, tmp_path / seed / "tiny")
    found = runner.find_subjects([tmp_path / "seed0" / "tiny", tmp_path / "seed1" / "tiny"])
    assert [subject.label for subject in found] == ["seed0/tiny", "seed1/tiny"]
    assert runner.find_subjects([run])[0].label == "tiny"
    with pytest.raises(InputError, match="each checkpoint once"):
        runner.find_subjects([run, run / "checkpoints"])


def test_checkpoints_of_one_run_have_its_name(run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "other"))
    shutil.copytree(run / "checkpoints" / "5", copied / "checkpoints" / "7")
    paths = [copied / "checkpoints" / "5", copied / "checkpoints" / "7"]
    assert [(s.label, s.run) for s in runner.find_subjects(paths)] == [
        ("other@5", "other"),
        ("other@7", "other"),
    ]
    found = runner.find_subjects([run, copied])
    assert [(s.label, s.run) for s in found] == [("tiny", "tiny"), ("other", "other")]

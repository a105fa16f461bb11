"""Trackers show what the results and records say, each checkpoint at its step, once."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from icl.evaluation.records import write_file
from icl.evaluation.results import MEAN
from icl.evaluation.subjects import Subject
from icl.evaluation.tracking import pages, show_evaluation
from icl.tracking.config import TrackingConfig
from icl.tracking.markdown import as_markdown
from icl.tracking.tracker import Sample
from tests.evaluation.test_report import chance, record, result
from tests.tracking.events import shown
from tests.tracking.stand_in import install
from tests.tracking.test_tensorboard import png
from tests.training.small import one_device_setup

DESCRIPTION = one_device_setup().description()
TENSORBOARD = TrackingConfig()


def subject(folder: Path, label: str, run: str, step: int, saved: int) -> Subject:
    """A checkpoint that was saved at a time."""
    checkpoints = folder / run.strip("./") / "checkpoints"
    (checkpoints / str(step)).mkdir(parents=True)
    os.utime(checkpoints / str(step), (saved, saved))
    return Subject(label, run, checkpoints, dataclasses.replace(DESCRIPTION, step=step), lambda _: None)


@pytest.fixture
def subjects(tmp_path: Path) -> list[Subject]:
    """Two checkpoints of one run, the later one first, and one of another."""
    return [
        subject(tmp_path, "../a@20", "../a", 20, 2_000),
        subject(tmp_path, "../a@10", "../a", 10, 1_000),
        subject(tmp_path, "b@10", "b", 10, 3_000),
    ]


RESULTS = [
    *(result("../a@10", "cipher", k, 0.1 * k) for k in (0, 2)),
    *(result("../a@20", "cipher", k, 0.2 * k) for k in (0, 2)),
    *(result("b@10", "cipher", k, 0.3 * k) for k in (0, 2)),
    result("b@10", "cipher", 2, 0.5, condition="random_labels"),
    result("b@10", "cipher", 2, 0.6, slice="query_seen"),
    result("b@10", MEAN, 2, 0.25, instruction=True),
    chance("cipher", 2),
]
PROMPT = dataclasses.replace(record("cipher", "ab>", "y"), k=4, k_effective=3)
RECORDS = {
    "../a@10": [PROMPT, dataclasses.replace(PROMPT, prompt=None, instruction=True)],
    "../a@20": [],
    "b@10": [],
}


def write(folder: Path, subjects: list[Subject]) -> dict[str, bytes]:
    """Shows everything; the files of the folder by name."""
    for name, width in (("k_curve.png", 30), ("k_curve_tasks.png", 40)):
        write_file(folder / name, png(width, 20))
    show_evaluation(TENSORBOARD, folder, subjects, RESULTS, RECORDS, {})
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*tfevents*")}


def test_scores_stand_at_the_steps_of_their_checkpoints(subjects: list[Subject], tmp_path: Path) -> None:
    """And whatever a label says, nothing is written outside of the folder."""
    write(tmp_path / "out", subjects)
    folder = tmp_path / "out" / "tensorboard"
    of_a = [row for row in shown(folder / "a") if not row[1].startswith("prompts/")]
    assert of_a == [
        (10, "exact_match/cipher/without_instruction/k00", 0.0),
        (10, "exact_match/cipher/without_instruction/k02", pytest.approx(0.2)),
        (20, "exact_match/cipher/without_instruction/k00", 0.0),
        (20, "exact_match/cipher/without_instruction/k02", pytest.approx(0.4)),
    ]
    assert shown(folder / "b") == [
        (10, "exact_match/cipher/without_instruction/k00", 0.0),
        (10, "exact_match/cipher/without_instruction/k02", pytest.approx(0.6)),
        (10, "exact_match/cipher/without_instruction/random_labels/k02", 0.5),
        (10, "exact_match/mean/with_instruction/k02", 0.25),
    ]
    assert shown(folder) == [(20, "figures/k_curve", png(30, 20)), (20, "figures/k_curve_tasks", png(40, 20))]
    assert {path.name for path in folder.parent.iterdir() if path.is_dir()} == {"tensorboard"}


def test_prompts_stand_beside_the_scores_of_their_checkpoint(subjects: list[Subject], tmp_path: Path) -> None:
    write(tmp_path / "out", subjects)
    found = [row for row in shown(tmp_path / "out" / "tensorboard" / "a") if row[1].startswith("prompts/")]
    expected = as_markdown([Sample("K = 3, without instruction", "ab>", "y", "y", True)])
    assert found == [(10, "prompts/cipher", expected)]


def test_of_many_prompts_those_with_no_one_and_most_demonstrations_are_shown(tmp_path: Path) -> None:
    one = subject(tmp_path, "a", "a", 10, 1_000)
    many = [
        dataclasses.replace(
            PROMPT,
            k=k,
            k_effective=k,
            instruction=instruction,
            condition=condition,
            prompt=f"{condition} {k}",
        )
        for condition in ("random_labels", "gold")
        for k in (0, 1, 2, 4)
        for instruction in (True, False)
    ]
    page, _ = pages([one], RESULTS, {"a": many}, tmp_path)
    assert [(sample.title, sample.prompt) for sample in page.samples["prompts/cipher"]] == [
        (f"K = {k}, {wording} instruction", f"gold {k}") for wording in ("without", "with") for k in (0, 1, 4)
    ]


def test_an_evaluation_that_is_run_again_leaves_the_same_files(
    subjects: list[Subject], tmp_path: Path
) -> None:
    """Also after a kill between the files, and with what an earlier version called otherwise."""
    first = write(tmp_path / "out", subjects)
    assert len(first) == 3
    folder = tmp_path / "out" / "tensorboard"
    shutil.rmtree(folder / "b")
    (folder / "a" / "events.out.tfevents.0000000001.old").write_bytes(b"old")
    (folder / "notes.txt").write_text("of somebody")
    assert write(tmp_path / "out", subjects) == first
    assert (folder / "notes.txt").exists()


def test_weights_and_biases_gets_all_checkpoints_in_one_run(
    subjects: list[Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In rising steps, each under the name of its run; again, nothing is added."""
    calls = install(tmp_path / "site", monkeypatch)
    write(tmp_path / "out", subjects)
    config = TrackingConfig(tensorboard=False, wandb_project="shots")
    for _ in range(2):
        show_evaluation(config, tmp_path / "out", subjects, RESULTS, RECORDS, {"EvalConfig.seeds": 2})
    assert [(call["job_type"], call["config"]) for call in calls.named("init")] == [
        ("evaluate", {"EvalConfig.seeds": 2})
    ] * 2
    logged = [(call["step"], name) for call in calls.named("log") for name in call["data"]]
    assert [step for step, _ in logged] == sorted(step for step, _ in logged)
    assert (20, "../a/exact_match/cipher/without_instruction/k02") in logged
    assert (10, "b/exact_match/mean/with_instruction/k02") in logged and logged[-1] == (
        20,
        "figures/k_curve_tasks",
    )
    assert len(logged) == len(set(logged)) == 11

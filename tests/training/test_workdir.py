import dataclasses
import json
from pathlib import Path

import pytest

from icl.errors import InputError
from icl.training.workdir import check_model, check_steps, check_workdir, claim_workdir
from tests.training.small import small_run


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    claim_workdir(tmp_path / "run", small_run())
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("model", {"embed_dim": 32}, "ModelConfig.embed_dim = 16, this run 32"),
        ("data", {"seed": 1}, "DataConfig.seed = 0, this run 1"),
        ("data", {"weights": {"cipher": 2.0, "word_label": 2.0}}, "DataConfig.weights"),
        ("optimizer", {"learning_rate": 1.0}, "OptimizerConfig.learning_rate = 0.003, this run 1.0"),
        ("train", {"seed": 3}, "TrainConfig.seed"),
    ],
)
def test_a_folder_with_another_run_is_refused_by_the_setting_that_differs(
    workdir: Path, part: str, change: dict[str, object], named: str
) -> None:
    before = (workdir / "run.json").read_bytes()
    with pytest.raises(InputError, match=f"run.json: this folder's run has {named}"):
        check_workdir(workdir, small_run(**{part: change}))
    assert (workdir / "run.json").read_bytes() == before


def test_a_changed_task_family_is_refused(workdir: Path) -> None:
    run = small_run()
    with pytest.raises(InputError, match="has a task family word_label, unlike this run"):
        check_workdir(workdir, small_run(families={"cipher": run.families["cipher"]}))


def test_cadences_and_mesh_may_change(workdir: Path) -> None:
    changed = small_run(
        train={"save_every": 7, "log_every": 3, "eval_every": 2, "keep_last": 9},
        model={"remat": "full"},
        mesh={"data": 2},
    )
    check_workdir(workdir, changed)


def test_a_checkpoint_of_a_model_with_the_same_shapes_but_other_settings_is_refused() -> None:
    model = small_run().model
    check_model(model, dataclasses.replace(model, remat="full"), "here")
    with pytest.raises(
        InputError, match="here: its model has ModelConfig.norm_epsilon = 1e-05, this run 0.1"
    ):
        check_model(model, dataclasses.replace(model, norm_epsilon=0.1), "here")


def test_more_steps_are_allowed_only_before_the_decay_begins(tmp_path: Path) -> None:
    claim_workdir(tmp_path, small_run(train={"steps": 100}))
    longer = small_run(train={"steps": 200})
    check_workdir(tmp_path, longer)
    check_steps(tmp_path, longer, 80)
    with pytest.raises(InputError, match="TrainConfig.steps = 200: .*started with 100.*learning rates"):
        check_steps(tmp_path, longer, 90)
    with pytest.raises(InputError, match="has done 80 steps already"):
        check_steps(tmp_path, small_run(train={"steps": 70}), 80)


def test_a_cosine_schedule_does_not_let_steps_change(tmp_path: Path) -> None:
    settings = {"optimizer": {"schedule": "cosine"}}
    claim_workdir(tmp_path, small_run(**settings, train={"steps": 100}))
    with pytest.raises(InputError, match="expected 100, or another --workdir"):
        check_steps(tmp_path, small_run(**settings, train={"steps": 200}), 50)


def test_a_workdir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file is a file: expected a folder"):
        check_workdir(tmp_path / "file", small_run())
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_foreign_metrics_or_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}")
    with pytest.raises(InputError, match="holds metrics.jsonl but no run.json"):
        check_workdir(tmp_path, small_run())
    for content in ("not json", "[]", json.dumps({"ModelConfig": 3})):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(InputError, match="run.json"):
            check_workdir(tmp_path, small_run())

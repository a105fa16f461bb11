"""Against a stand-in that records its calls and keeps, as theirs, the steps of runs that are gone on with."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from icl.errors import InputError
from icl.tracking.config import TrackingConfig, check_installed
from icl.tracking.tracker import Sample
from icl.tracking.weights_and_biases import WeightsAndBiases
from tests.tracking.stand_in import Calls, install
from tests.tracking.test_tensorboard import png

CONFIG = TrackingConfig(wandb_project="shots", wandb_entity="lab")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return install(tmp_path / "site", monkeypatch)


def begin(folder: Path, **changes: Any) -> WeightsAndBiases:
    return WeightsAndBiases(TrackingConfig(**{"wandb_project": "shots"} | changes), folder, "train", {"a": 1})


def test_all_that_tensorboard_gets_is_logged_at_its_step(calls: Calls, tmp_path: Path) -> None:
    tracker = WeightsAndBiases(CONFIG, tmp_path / "runs" / "small", "train", {"TrainConfig": {"steps": 3}})
    tracker.scalars(1, {"train/loss": 2.5})
    tracker.figure(2, "k_curve", png(30, 20))
    tracker.samples(2, "sums", [Sample("K = 0", "2+2=\ud800", "4", "4", True)])
    tracker.close()
    (begun,) = calls.named("init")
    expected = {
        "project": "shots",
        "entity": "lab",
        "mode": "online",
        "resume": "allow",
        "name": "runs/small",
    }
    assert expected.items() <= begun.items()
    assert begun["config"] == {"TrainConfig": {"steps": 3}} and begun["job_type"] == "train"
    assert [(call["step"], call["data"]) for call in calls.named("log")] == [
        (1, {"train/loss": 2.5}),
        (2, {"k_curve": {"image": [30, 20]}}),
        (
            2,
            {
                "sums": {
                    "columns": ["prompt", "question", "answer", "expected", "right"],
                    "data": [["K = 0", "2+2=?", "4", "4", True]],
                }
            },
        ),
    ]
    assert [call["exit_code"] for call in calls.named("finish")] == [0]


def test_a_run_started_again_goes_on_in_the_same_one_and_repeats_no_step(
    calls: Calls, tmp_path: Path
) -> None:
    for start, last in ((1, 5), (4, 7)):
        tracker = begin(tmp_path / "run")
        for step in range(start, last + 1):
            tracker.scalars(step, {"start": start})
        tracker.close(failed=start == 1)
    first, second = calls.named("init")
    assert first["id"] == second["id"] == json.loads((tmp_path / "run" / "wandb.json").read_text())["id"]
    assert [(call["step"], call["data"]["start"]) for call in calls.named("log")] == [
        *((step, 1) for step in range(1, 6)),
        *((step, 4) for step in (6, 7)),
    ]
    assert [call["exit_code"] for call in calls.named("finish")] == [1, 0]


def test_other_folders_and_other_projects_are_other_runs(calls: Calls, tmp_path: Path) -> None:
    begin(tmp_path / "a").close()
    begin(tmp_path / "b").close()
    begin(tmp_path / "a", wandb_project="other").close()
    assert len({call["id"] for call in calls.named("init")}) == 3


def test_offline_nothing_is_asked_of_the_network(calls: Calls, tmp_path: Path) -> None:
    begin(tmp_path / "run", wandb_mode="offline").close()
    (begun,) = calls.named("init")
    assert (begun["mode"], begun["resume"], begun["dir"]) == ("offline", None, str(tmp_path / "run"))


def test_a_failure_there_is_told_once_and_ends_nothing(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = begin(tmp_path / "run")
    calls.fail_at("log")
    for step in (1, 2, 3):
        tracker.scalars(step, {"loss": 1.0})
    tracker.close()
    assert capsys.readouterr().err.count("Weights & Biases failed, nothing more is logged there") == 1
    assert calls.named("finish") == []


def test_a_run_that_may_not_begin_is_refused_in_one_line(calls: Calls, tmp_path: Path) -> None:
    calls.fail_at("init")
    with pytest.raises(InputError, match=r"'shots': .*UsageError: no key.*expected `wandb login`") as caught:
        begin(tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_damaged_file_of_the_run_is_refused_by_name(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "wandb.json").write_text('{"project": "shots", "enti')
    with pytest.raises(InputError, match="wandb.json: holds no run"):
        begin(tmp_path)
    assert calls.named("init") == []


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that an offline run leaves in the current one is no package."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    check_installed(TrackingConfig())
    with pytest.raises(InputError, match=r"wandb_project = 'shots'.*pip install 'icl\[wandb\]'"):
        check_installed(CONFIG)
    install(tmp_path / "site", monkeypatch)
    check_installed(CONFIG)


def test_a_setting_without_a_project_is_refused() -> None:
    with pytest.raises(InputError, match=r"wandb_mode = 'offline': expected TrackingConfig.wandb_project"):
        TrackingConfig(wandb_mode="offline")

"""The experiment data_that_makes_it_appear: what it varies, and that it goes on where it stopped."""

import functools
import json
from pathlib import Path

import pytest

from experiments.data_that_makes_it_appear.run import SIZES, STUDIES, Planned, experiment, plan
from icl.errors import InputError
from icl.training.workdir import settings_of
from tests.experiments import run_experiment

VARIED = {
    "burstiness": {"task family class_label.burstiness"},
    "skew": {"task family class_label.skew"},
    "classes": {"task family class_label.num_classes"},
    "no_convolution": {"task family class_label.num_classes"},
    "long": set(),
    "instances": {"task family recall.num_training_instances"},
    "families": {"DataConfig.leave_out"},
}


@functools.cache
def planned(size: str) -> list[Planned]:
    return list(plan(SIZES[size], []))


@pytest.mark.parametrize("study", STUDIES)
def test_conditions_of_a_study_differ_in_what_it_varies_and_nothing_else(study: str) -> None:
    runs = [one.run for one in planned("cpu") if one.study == study and one.run.train.seed == 0]
    flat = [
        {
            f"{part}.{name}": value
            for part, of_part in settings_of(run).items()
            for name, value in of_part.items()
        }
        for run in runs
    ]
    assert len(flat) == len(STUDIES[study].conditions)
    differing = {name for name in flat[0] if any(one[name] != flat[0][name] for one in flat)}
    assert differing == VARIED[study]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_loads_and_equal_conditions_are_one_run(size: str) -> None:
    paths = {(one.study, one.condition, one.run.train.seed): one.path(Path()) for one in planned(size)}
    assert len(SIZES[size].seeds) >= 2 or size == "smoke"
    if size == "smoke":
        assert len(set(paths.values())) == len(paths)
    else:
        base = {paths[study, name, 0] for study, name in
                (("burstiness", "p = 0.9"), ("skew", "alpha = 0"), ("classes", "512 classes"))}  # fmt: skip
        assert len(base) == 1
        assert len(set(paths.values())) == len(paths) - 2 * len(SIZES[size].seeds)


def test_an_unknown_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--studies: 'depth': expected of burstiness, skew"):
        experiment(tmp_path, SIZES["smoke"], ["depth"], [])


@pytest.mark.extended
@pytest.mark.timeout(900)
def test_the_command_measures_every_condition_and_does_not_train_twice(tmp_path: Path) -> None:
    """In the smoke size, from the command line: first one study, then all, then all again."""
    done = [
        run_experiment(
            "data_that_makes_it_appear", "--size", "smoke", "--experiment_dir", str(tmp_path), *flags
        )
        for flags in (["--studies", "instances"], [], [])
    ]
    assert [one.returncode for one in done] == [0, 0, 0], done[-1].stderr
    assert "runs of other studies are missing" in done[0].stdout
    assert done[1].stdout == done[2].stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["studies"]) == list(STUDIES)
    assert results["runs"] == len(list((tmp_path / "runs").iterdir()))
    (run,) = results["studies"]["burstiness"]["p = 0"]
    assert len(run["steps"]) == len(run["scores"]["novel"]) == len(run["loss"]) + 1
    assert (tmp_path / "data.png").read_bytes().startswith(b"\x89PNG")
    refused = run_experiment("data_that_makes_it_appear", "--size", "smoke")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "--experiment_dir is missing" in refused.stderr

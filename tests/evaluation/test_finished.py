"""A finished evaluation reads back as it was, and every figure of a model leads to its records."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from icl.errors import InputError
from icl.evaluation.config import EvalConfig
from icl.evaluation.finished import Evaluation, read_all_records, read_evaluation, trace
from icl.evaluation.records import Result
from icl.evaluation.results import BASELINE, MEAN, MEDIAN
from icl.evaluation.runner import evaluate
from icl.training.checkpoints import Checkpoints
from tests.training.small import one_device_setup

CONFIG = EvalConfig(
    ks=(0, 4),
    queries=6,
    seeds=2,
    conditions=("gold", "flipped_labels"),
    templates=("default", "arrow"),
    batch_rows=32,
    bootstrap=100,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run with fresh parameters is, which answer at random, and its evaluation."""
    place = tmp_path_factory.mktemp("finished")
    setup = one_device_setup()
    with Checkpoints(place / "run", keep_last=1) as checkpoints:
        checkpoints.save(5, setup.init_state(), setup.description())
    return place


@pytest.fixture(scope="module")
def evaluation(place: Path) -> Evaluation:
    """The evaluation; it reads back as it was returned."""
    results = evaluate([place / "run"], CONFIG, str(place / "eval"))
    evaluation = read_evaluation(str(place / "eval"))
    assert evaluation.results == results
    return evaluation


def of_models(evaluation: Evaluation) -> list[Result]:
    rows = evaluation.results
    return [row for row in rows if row.checkpoint != BASELINE and row.task != MEAN and row.template != MEDIAN]


def test_every_figure_of_a_model_is_the_mean_of_the_records_it_leads_to(evaluation: Evaluation) -> None:
    assert len(evaluation.records) == 2 * 6 * 2 * 2 * 2 * 2 * 2
    seen = {(row.slice, row.condition, row.template, row.metric) for row in of_models(evaluation)}
    assert len({part for part, *_ in seen}) == 3 and len(seen) >= 3 * 2 * 2 * 3
    for row in of_models(evaluation):
        found = trace(row, evaluation.records)
        assert row.value == pytest.approx(np.mean([score for _, score in found]), abs=2e-6)
        assert row.n == len({record.query for record, _ in found})


def test_what_is_no_mean_over_records_is_refused(evaluation: Evaluation) -> None:
    first = of_models(evaluation)[0]
    for other, expected in (
        (dataclasses.replace(first, checkpoint=BASELINE), "no model answers"),
        (dataclasses.replace(first, task=MEAN), "result of one task"),
        (dataclasses.replace(first, template=MEDIAN), "result of one format"),
        (dataclasses.replace(first, metric="bleu"), "a metric of single records"),
    ):
        with pytest.raises(InputError, match=expected):
            trace(other, evaluation.records)


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no results.jsonl; expected the folder of a finished"):
        read_evaluation(tmp_path)
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"has no records/\*.jsonl.gz"):
        read_evaluation(tmp_path)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.jsonl.gz").write_bytes(b"")
    with pytest.raises(InputError, match="results.jsonl: not the results of an evaluation"):
        read_evaluation(tmp_path)


def test_without_results_an_evaluation_still_has_its_records(
    evaluation: Evaluation, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "eval" / "records", tmp_path / "records")
    assert evaluate([place / "run"], CONFIG, tmp_path, records_only=True) == []
    assert [path.name for path in tmp_path.iterdir()] == ["records"]
    assert read_all_records(tmp_path) == evaluation.records
    with pytest.raises(InputError, match=r"has no results.jsonl"):
        read_evaluation(tmp_path)
    with pytest.raises(InputError, match=r"has no records/\*.jsonl.gz"):
        read_all_records(tmp_path / "records")

"""The experiment loss_against_compute: what it predicts is written before what it predicts is trained."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from experiments.loss_against_compute.run import SIZES, corrected, experiment, load
from icl.analysis.scaling_laws import Prediction
from icl.data.tokenizer import load_tokenizer
from icl.errors import InputError
from icl.model import num_non_embedding_params
from tests.experiments import run_experiment

SMOKE = SIZES["smoke"]


def text_binding(folder: Path, words: int) -> str:
    """So many words, some far more often than others."""
    rng = np.random.default_rng(0)
    vocabulary = ["".join(rng.choice(list("etaoinshrdlu"), rng.integers(2, 8))) for _ in range(500)]
    path = folder / "text.txt"
    path.write_text(" ".join(vocabulary[min(int(draw), 499)] for draw in rng.zipf(1.3, words)))
    return f"text = ['{path}']"


@pytest.mark.extended
@pytest.mark.timeout(600)
def test_the_command_predicts_the_largest_rung_before_it_trains_it(tmp_path: Path) -> None:
    """In the smoke size, from the command line; with the devices that a user has."""
    workdir = tmp_path / "run"
    flags = [
        "--size",
        "smoke",
        "--experiment_dir",
        str(workdir),
        "--gin_bindings",
        text_binding(tmp_path, 30_000),
    ]
    done = run_experiment("loss_against_compute", *flags)
    assert done.returncode == 0, done.stderr
    before, results = (
        json.loads((workdir / f"{name}.json").read_text()) for name in ("prediction", "results")
    )
    checkpoint = next((workdir / "largest").glob("*/checkpoints"))
    assert (workdir / "prediction.json").stat().st_mtime < checkpoint.stat().st_mtime
    assert len(before["points"]) == len(SMOKE.rungs) * len(SMOKE.tokens)
    assert before["target"]["params"] > max(point["params"] for point in before["points"])
    found = results["prediction"]
    assert {name: found[name] for name in before["prediction"]} == before["prediction"]
    assert found["error"] == found["loss"] / found["measured"] - 1
    assert found["within_interval"] == (found["low"] <= found["measured"] <= found["high"])
    assert f"corrected: predicted {found['loss']:.4f}" in done.stdout
    assert all(not Path(point["name"]).is_absolute() for point in results["points"])
    assert (workdir / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_prediction_is_corrected_by_what_was_missed_one_rung_earlier() -> None:
    """Divided by one plus the error; its interval is as much wider as the error is large."""
    predicted = Prediction(loss=2.0, low=1.94, high=2.08, level=0.95, naive=2.2)
    found = corrected(predicted, {"error": 0.04})
    assert found["loss"] == pytest.approx(2.0 / 1.04) and found["naive"] == 2.2
    assert found["low"] == pytest.approx(found["loss"] * (1 - 0.05))  # 0.03 and 0.04
    assert found["high"] == pytest.approx(found["loss"] * (1 + 0.04 * 2**0.5))
    assert corrected(predicted, None) == dataclasses.asdict(predicted)


def test_a_target_that_was_trained_before_it_was_predicted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run" / "largest").mkdir(parents=True)
    with pytest.raises(InputError, match="expected a prediction before the run it is of"):
        experiment(tmp_path / "run", SMOKE, [text_binding(tmp_path, 30_000)])


def test_text_too_short_for_all_to_be_unique_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="all are measured on need"):
        experiment(tmp_path / "run", SMOKE, [text_binding(tmp_path, 2000)])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", SIZES)
def test_every_size_has_enough_runs_and_a_larger_target(name: str) -> None:
    size, vocabulary = SIZES[name], load_tokenizer("bytes").vocab_size
    if name != "smoke":
        assert len(size.rungs) * len(size.tokens) >= 12
    for tokens in (*size.tokens, size.target_tokens):
        for run in load(size, [*size.rungs, size.target], tokens, ["text = ['books']"]):
            assert 0 <= run.tokens(run.train.steps) - tokens < run.train.batch_tokens
            assert run.optimizer.warmup_tokens == tokens // 20 and run.optimizer.schedule != "constant"
    runs = load(size, [*size.rungs, size.target], size.target_tokens, ["text = ['books']"])
    models = [dataclasses.replace(run.model, vocab_size=vocabulary) for run in runs]
    params = [num_non_embedding_params(model) for model in models]
    assert params == sorted(params) and size.target_tokens > max(size.tokens)

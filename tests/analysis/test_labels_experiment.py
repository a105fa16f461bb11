"""The experiment what_demonstrations_teach: what it trains on, and that its command does all of it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from experiments.what_demonstrations_teach.run import KS, SHARES, SIZES, load
from icl.data.rows import Rows
from icl.data.tokenizer import load_tokenizer
from icl.evaluation.conditions import ABSTRACT
from icl.model import num_params
from icl.tasks import build_tasks
from tests.experiments import run_experiment

NAME = "what_demonstrations_teach"


@pytest.mark.parametrize("name", SIZES)
def test_abstract_labels_are_never_trained_on_and_a_row_holds_the_largest_k(name: str) -> None:
    tokenizer = load_tokenizer("bytes")
    for share in SHARES:
        runs = load(SIZES[name], share, 0, [])
        (drawn,) = (run.families["drawn/word_class"] for run in runs[:1])
        labels = build_tasks(runs[0].families)["word_class"][0].labels()
        assert drawn.reserved == ABSTRACT[: len(labels)]
        sizes = [num_params(dataclasses.replace(run.model, vocab_size=259)) for run in runs]
        assert sizes == sorted(set(sizes))
        rows = Rows(runs[0].data, build_tasks(runs[0].families), tokenizer)
        text = "".join(tokenizer.decode(np.ravel(np.asarray(rows[i].inputs_BT)).tolist()) for i in range(100))
        assert all(f">{label}\n" in text for label in labels)
        assert not any(f">{label}\n" in text for label in ABSTRACT[:4])
        assert runs[0].data.row_length >= len(">sun\nXXX") * (max(KS) + 1)


def test_without_renamed_episodes_only_usual_names_are_trained_on() -> None:
    (run,) = load(SIZES["smoke"], 0.0, 0, [])
    assert run.data.weights == {"word_class": 1.0, "permuted/word_class": 0.0, "drawn/word_class": 0.0}
    (run,) = load(SIZES["smoke"], 0.5, 0, [])
    assert run.data.weights == {"word_class": 0.5, "permuted/word_class": 0.25, "drawn/word_class": 0.25}


def test_a_missing_folder_is_one_line() -> None:
    done = run_experiment(NAME)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: --experiment_dir is missing: expected a folder to write to"


@pytest.mark.extended
@pytest.mark.timeout(600)
def test_the_command_trains_asks_and_draws_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    flags = ["--size", "smoke", "--experiment_dir", str(tmp_path)]
    done = run_experiment(NAME, *flags)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {f"{share:g}" for share in SHARES}
    for of_share in results.values():
        (one,) = of_share.values()
        for figure in ("gold", "random_labels", "flipped_labels", "following", "learning", "ECE, gold"):
            for value, low, high, models in one["by_demonstrations"][figure].values():
                assert low <= value <= high and models == [value]
        assert set(one["through_training"]) == {"10", "20"}
        for spread in one["orders"].values():
            assert spread["worst"][0] <= spread["mean"][0] <= spread["best"][0]
    written = (tmp_path / "results.json").read_bytes()
    assert (tmp_path / "labels.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "results.json").unlink()
    again = run_experiment(NAME, *flags)
    assert again.returncode == 0 and (tmp_path / "results.json").read_bytes() == written

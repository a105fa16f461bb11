"""The experiment fine_tuning_against_demonstrations, on lists made up for it."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.fine_tuning_against_demonstrations.run import SIZES, Data, experiment
from icl.analysis.prompt_worth import prompt_worth
from icl.analysis.prompt_worth_figures import Compared, draw
from icl.config import load_runs
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.tasks import build_tasks
from icl.training.fine_tuning import FineTuneConfig
from icl.training.fine_tuning_rows import draw_examples
from tests.experiments import run_experiment

REPOSITORY = Path(__file__).parents[2]
GIN = REPOSITORY / "experiments/fine_tuning_against_demonstrations"


def write_lists(folder: Path, lemmas: int) -> Data:
    """Two languages of regular endings, and more of a third that counts as English."""
    rng = np.random.default_rng(0)
    endings = {"N;PL": "s", "V;PST": "ed", "V;V.PTCP;PRS": "ing"}
    for language, number in (
        ("latin-train", 40),
        ("greek-train", 40),
        ("english-train", 40),
        ("list", lemmas),
    ):
        words = {"".join(rng.choice(list("abcdeilmnorstu"), 6)) for _ in range(number)}
        lines = [f"{w}\t{w}{ending}\t{tag}" for w in sorted(words) for tag, ending in endings.items()]
        (folder / language).write_text("\n".join(lines))
    return Data(str(folder / "*-train"), str(folder / "list"))


@pytest.mark.extended
@pytest.mark.timeout(900)
def test_the_command_compares_every_task_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """In the smoke size, from the command line, with the devices that a user has."""
    data = write_lists(tmp_path, 60)
    folder = tmp_path / "out"
    flags = ["--size", "smoke", "--experiment_dir", str(folder)]
    flags += ["--inflection", data.inflection, "--inflected", data.inflected]
    done = [run_experiment("fine_tuning_against_demonstrations", *flags) for _ in range(2)]
    assert [each.returncode for each in done] == [0, 0], done[0].stderr[-2000:] + done[1].stderr[-2000:]
    assert "translation, N = 16, seed 0" in done[0].stdout and "N = 16, seed" not in done[1].stdout
    tasks = json.loads((folder / "results.json").read_text())["tasks"]
    assert set(tasks) == {"translation", "rearrangement", "classification", "inflection_list"}
    for found in tasks.values():
        assert [run["examples"] for run in found["fine_tuning"]] == [8, 16]
        assert found["queries"] == 20 and found["agreement_of_both_scorers"] == 1.0
        alone, *more = found["demonstrations"]
        assert alone["flops_of_1000"] == pytest.approx(alone["cached_flops_of_1000"])
        assert all(one["flops_of_1000"] > one["cached_flops_of_1000"] > 0 for one in more)
    assert (folder / "worth.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_every_task_has_enough_inputs_that_the_base_model_never_trains_on(name: str, tmp_path: Path) -> None:
    size, data = SIZES[name], write_lists(tmp_path, 1800)
    (base,) = load_runs([str(GIN / size.gin)], [f"inflection = {data.inflection!r}"])
    (run,) = load_runs([str(GIN / "tasks.gin")], [f"inflected = {data.inflected!r}"])
    tasks = {task.name: task for family in build_tasks(run.families).values() for task in family}
    assert len(tasks) == 4 and max(size.examples) == 4096 and size.queries >= 500
    most = FineTuneConfig(examples=max(size.examples), test_queries=size.queries)
    for task in tasks.values():
        drawn = draw_examples(most, task)
        assert len(drawn.train) + len(drawn.development) == 4096
        example = drawn.train[0]
        row = ByteTokenizer().encode(task.template.context(example) + example.target)
        assert len(row) < run.data.row_length
    for entry in ("cipher", "position_map", "letter_label"):
        (trained,) = build_tasks({entry: base.families[entry]})[entry]
        reported = [f for f in run.families.values() if getattr(f, "family", "") == entry]
        for family in reported:
            held_out = trained.instance("held_out", family.number)
            shown = {(e.input, e.target) for e in held_out.demonstrations(np.random.default_rng(0))}
            (task,) = family.build("x/one_instance")
            assert {(q.example.input, q.example.target) for q in task.queries("held_out")} <= shown
    lists = build_tasks({"pairs": base.families["pairs"]})["pairs"]
    assert {task.name for task in lists if task.trained} == {"latin-train", "greek-train"}


def test_base_models_of_another_number_than_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--base_checkpoint: 2 of them; expected 3, one a seed"):
        experiment(tmp_path, SIZES["cpu"], Data("x", "y"), bases=["a", "b"])


def test_the_figure_is_the_same_for_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    sizes, ks = (8, 64, 512), (0, 1, 4)
    tuned = (rng.random((2, 50, 3)) < [0.1, 0.5, 0.9]).astype(float)
    prompted = (rng.random((2, 50, 3)) < [0.0, 0.3, 0.7]).astype(float)
    worth = prompt_worth(sizes, tuned, ks[1:], prompted[..., 1:], replicates=50)
    panel = Compared(sizes, tuned.mean(1), ks, prompted.mean(1), worth, 0.1)
    none = panel._replace(worth=prompt_worth(sizes, tuned, ks[1:], 0 * prompted[..., 1:], replicates=50))
    figures = [draw({"one": panel, "two": none, "three": panel}) for _ in range(2)]
    assert figures[0] == figures[1] and figures[0].startswith(b"\x89PNG")
    assert figures[0] != draw({"one": panel, "two": panel, "three": panel})

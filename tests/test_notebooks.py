"""The notebooks run top to bottom, with smaller settings than their own, and show what they say.

Those that train only when asked for: `bash tools/test.sh -m extended`. `tools/run_notebooks.py` runs them all
with their own settings.
"""

import base64
import io
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

import icl
from icl.data.huggingface_tokenizer import HuggingFaceTokenizer
from icl.evaluation.finished import read_evaluation, trace
from icl.interop.huggingface import write_folder
from icl.model import ModelConfig, init_params
from tests.interop.tokenizers_for_tests import gpt2_tokenizer
from tools import run_notebooks
from tools.check_readme import problems
from tools.readme_commands import commands_of
from tools.run_notebooks import curve, execute, figures, notebooks, outputs, printed, value, with_parameters

NAMES = sorted(notebooks())
FEW = {"QUERIES": 16, "SEEDS": 1}


@pytest.fixture(autouse=True)
def optimized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the steps of training take longer than compiling them."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)


def ran(name: str, folder: Path, **parameters: Any) -> NotebookNode:
    """A notebook that came out well: every cell ran, and no figure is empty."""
    notebook = execute(notebooks()[name], folder, parameters)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    for figure in figures(notebook):
        assert np.std(plt.imread(io.BytesIO(base64.b64decode(figure)))) > 0.01
    return notebook


@pytest.mark.extended
def test_first_steps_go_from_nothing_to_a_k_curve(tmp_path: Path) -> None:
    notebook = ran("first_steps", tmp_path, STEPS=130, **FEW)
    assert len(figures(notebook)) == 2  # loss, K-curves
    evaluation = tmp_path / "runs/first_steps/eval"
    learned, other = curve(evaluation, "word_label"), curve(evaluation, "cipher")
    assert value(learned, 0) < 0.4 and value(learned, 16) > 0.6  # chance: 0.1
    assert list(learned.points) == list(other.points) == [0, 1, 2, 4, 8, 16]
    text = printed(notebook)
    kept = [record for record in read_evaluation(evaluation).records if record.prompt is not None]
    assert len({record.task for record in kept}) == 2
    for record in kept:
        assert (f"{record.prompt}[{record.prediction}]" in text) == (record.k in (0, 2, 8))


@pytest.mark.extended
def test_a_file_is_learnt_in_the_weights_and_a_family_in_the_context(tmp_path: Path) -> None:
    notebook = ran("your_own_task", tmp_path, STEPS=120, **FEW)
    assert len(figures(notebook)) == 1
    assert "of 48 test reviews, 0 stand in training rows" in printed(notebook)
    claims = run_notebooks.your_own_task(tmp_path)
    assert all(claim.holds for claim in claims), claims


@pytest.mark.extended
def test_a_k_curve_is_read_down_to_its_records(tmp_path: Path) -> None:
    notebook = ran("read_a_k_curve", tmp_path, STEPS=130, QUERIES=16, SEEDS=2)
    assert len(figures(notebook)) == 2  # K-curves, conditions
    claims = run_notebooks.read_a_k_curve(tmp_path)
    assert all(claim.holds for claim in claims), claims
    evaluation = read_evaluation(tmp_path / "runs/read_a_k_curve/eval")
    point = curve(tmp_path / "runs/read_a_k_curve/eval", "cipher").points[4]
    answers = trace(point, evaluation.records)
    assert len(answers) == 16 * 2
    assert f"{point.value:.6f} is the mean of 32 records: {point.value:.6f}" in printed(notebook)


@pytest.mark.slow
def test_a_folder_of_public_weights_is_evaluated(tmp_path: Path) -> None:
    config = ModelConfig(vocab_size=384, max_length=256, num_layers=1, embed_dim=32, num_heads=2)
    tokenizer = HuggingFaceTokenizer(
        gpt2_tokenizer(), start_id=0, end_ids=(0,), pad_id=0, config="", source="here"
    )
    write_folder(tmp_path / "random", config, init_params(config, jax.random.key(0)), tokenizer)
    notebook = ran("public_weights", tmp_path, MODELS=(str(tmp_path / "random"),), QUERIES=6, SEEDS=1)
    assert len(figures(notebook)) == 1
    assert "random: 33,248 parameters, 256 tokens of context" in printed(notebook)
    assert all(claim.holds for claim in run_notebooks.public_weights(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_as_it_was_written(name: str) -> None:
    """Without outputs and counts, and with metadata that say no more than the language."""
    notebook = nbformat.read(notebooks()[name], as_version=4)
    nbformat.validate(notebook)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata == {"kernelspec": kernel, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        assert cell.metadata in ({}, {"tags": ["parameters"]})
    text = notebooks()[name].read_text(encoding="utf-8")
    assert nbformat.writes(notebook) + "\n" == text  # as Jupyter writes it, so that changes are readable


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_opens_with_its_purpose_and_one_cell_that_installs(name: str) -> None:
    notebook = nbformat.read(notebooks()[name], as_version=4)
    first, second, third = notebook.cells[:3]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    others = [nbformat.read(path, as_version=4).cells[1].source for path in notebooks().values()]
    assert set(others) == {second.source} and "%pip install" in second.source
    assert 'if importlib.util.find_spec("icl") is None:' in second.source
    assert sum("pip install" in cell.source for cell in notebook.cells if cell.cell_type == "code") == 1
    assert third.metadata.tags == ["parameters"]


@pytest.mark.parametrize("name", NAMES)
def test_commands_that_a_notebook_shows_are_right(name: str) -> None:
    notebook = nbformat.read(notebooks()[name], as_version=4)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    text = " ".join(" ".join(texts).split())  # a command may go on in the next line
    assert problems(list(commands_of(text, name))) == []


def test_parameters_win_over_the_tagged_cell_and_unknown_ones_are_refused() -> None:
    notebook = nbformat.read(notebooks()["first_steps"], as_version=4)
    changed = with_parameters(notebook, {"STEPS": 7})
    assert changed.cells[3].source == "STEPS = 7" and len(changed.cells) == len(notebook.cells) + 1
    with pytest.raises(ValueError, match=r"no parameters \['STEP'\]"):
        with_parameters(notebook, {"STEP": 7})


def test_a_cell_that_fails_is_an_error_and_cells_see_this_checkout(tmp_path: Path) -> None:
    cells = [
        nbformat.v4.new_code_cell(source) for source in ("A = 1", "import icl\nraise OSError(icl.__file__)")
    ]
    cells[0].metadata.tags = ["parameters"]
    path = tmp_path / "fails.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with pytest.raises(CellExecutionError, match="OSError") as error:
        execute(path, tmp_path)
    assert str(icl.__file__) in str(error.value)

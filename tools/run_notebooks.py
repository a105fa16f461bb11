"""Runs the notebooks of experiments/notebooks top to bottom and checks what they claim.

    python tools/run_notebooks.py [NAME ...] [--output FOLDER]

Prints the seconds that each took and what was found, with the settings that stand in it; exit code 1 where a
claim does not hold. The notebooks as they came out lie in the output folder, with what they wrote. Needs
nbclient and ipykernel (extra `dev`); `public_weights` asks the Hugging Face hub, or takes --model FOLDER.
"""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from icl.evaluation.curves import baselines, curves, models
from icl.evaluation.finished import Evaluation
from icl.evaluation.results import CONDITION

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "experiments" / "notebooks"
PARAMETERS = "parameters"
SECONDS = 180
"""That a notebook may take on two cores."""


def notebooks() -> dict[str, Path]:
    """The notebooks by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}


def execute(path: Path, folder: Path, parameters: Mapping[str, Any] | None = None) -> NotebookNode:
    """Runs a notebook in a folder, with this interpreter and this checkout's `icl`.

    Args:
      path: The notebook.
      folder: Where it works; it writes nothing elsewhere.
      parameters: Values that win over those of its cell tagged "parameters".

    Returns:
      The notebook with its outputs.

    Raises:
      CellExecutionError: a cell failed.
    """
    notebook = with_parameters(nbformat.read(path, as_version=4), parameters or {})
    search = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": search, "IPYTHONDIR": str(folder / ".ipython")}
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environment)
    return notebook


def with_parameters(notebook: NotebookNode, parameters: Mapping[str, Any]) -> NotebookNode:
    """The notebook with a cell that sets values after the one tagged "parameters".

    Raises:
      ValueError: it has not one such cell, or that cell does not set a name.
    """
    tagged = [cell for cell in notebook.cells if PARAMETERS in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{len(tagged)} cells are tagged {PARAMETERS!r}: expected one")
    settable = {line.split(" =")[0] for line in tagged[0].source.splitlines() if " = " in line}
    if unknown := set(parameters) - settable:
        raise ValueError(f"no parameters {sorted(unknown)}; there are {sorted(settable)}")
    changed = copy.deepcopy(notebook)
    if parameters:
        source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        cell = nbformat.v4.new_code_cell(source, id="given-parameters")
        changed.cells.insert(notebook.cells.index(tagged[0]) + 1, cell)
    return changed


def printed(notebook: NotebookNode) -> str:
    """What its cells printed."""
    return "".join(o.text for o in outputs(notebook) if o.output_type == "stream" and o.name == "stdout")


def figures(notebook: NotebookNode) -> list[str]:
    """The figures that it shows, as PNG in base64."""
    return [o.data["image/png"] for o in outputs(notebook) if "image/png" in o.get("data", {})]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    """Everything that its cells showed."""
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def score(
    evaluation: Evaluation, task: str, k: int, *, part: str = "all", condition: str = CONDITION
) -> float:
    """Exact match (0..1) of the one model of an evaluation, without instruction."""
    (curve,) = models(curves(evaluation.results, task, False, part=part, condition=condition))
    return curve.points[k].value


def rule(evaluation: Evaluation, task: str, k: int, name: str) -> float:
    """Exact match (0..1) of a baseline."""
    found = baselines(curves(evaluation.results, task, False))
    return next(curve.points[k].value for curve in found if curve.name == name)

"""Runs the notebooks of experiments/notebooks top to bottom and checks what they claim.

    python tools/run_notebooks.py [NAME ...] [--output FOLDER] [--model FOLDER]

Each runs with the settings that stand in it, and is told with its seconds and what was found; exit code 1
where a claim does not hold. The output folder gets the notebooks as they came out, and what they wrote. Needs
nbclient and ipykernel (extra `dev`). `public_weights` asks the Hugging Face hub, or reads --model.
"""

import argparse
import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from icl.evaluation.curves import Curve, baselines, curves, models
from icl.evaluation.finished import read_evaluation
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
        notebook,
        timeout=600,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
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


class Claim(NamedTuple):
    """What a notebook says, with the figures that were found."""

    text: str
    holds: bool


def curve(evaluation: Path, task: str, *, part: str = "all", condition: str = CONDITION) -> Curve:
    """The K-curve of the one model of an evaluation, without instruction."""
    results = read_evaluation(evaluation).results
    (found,) = models(curves(results, task, False, part=part, condition=condition))
    return found


def baseline(evaluation: Path, task: str, name: str) -> Curve:
    """The K-curve of a rule that needs no model."""
    found = baselines(curves(read_evaluation(evaluation).results, task, False))
    return next(rule for rule in found if rule.name == name)


def value(curve: Curve, k: int) -> float:
    """Accuracy (0..1) at a K."""
    return curve.points[k].value


def rises_above_chance(evaluation: Path, task: str) -> Claim:
    """At K = 0 a guess, at K = 16 far more, and no less than looking up."""
    rising = curve(evaluation, task)
    guess, seen = (value(baseline(evaluation, task, name), 16) for name in ("chance", "lookup"))
    first, last = value(rising, 0), value(rising, 16)
    text = f"{task}: {first:.2f} at K = 0, {last:.2f} at K = 16; chance {guess:.2f}, look-up {seen:.2f}"
    return Claim(text, first < guess + 0.25 and last > guess + 0.4 and last > seen - 0.1)


def first_steps(folder: Path) -> list[Claim]:
    """Both curves rise."""
    return [rises_above_chance(folder / "runs/first_steps/eval", task) for task in ("cipher", "word_label")]


def your_own_task(folder: Path) -> list[Claim]:
    """A file is learnt in the weights, a family in the context."""
    place = folder / "runs/your_own_task"
    seating, reviews = (curve(place / "eval", task) for task in ("seating", "reviews"))
    first, last = value(seating, 0), value(seating, 8)
    known, other = value(reviews, 4), value(curve(place / "eval_new_dishes", "new_dishes"), 4)
    return [
        Claim(f"seating: {first:.2f} at K = 0, {last:.2f} at K = 8", first < 0.45 and last > first + 0.3),
        Claim(f"reviews at K = 4: {known:.2f}, of new dishes {other:.2f}", min(known, other) > 0.75),
    ]


def read_a_k_curve(folder: Path) -> list[Claim]:
    """Seen queries are answered, others guessed; flipped labels are believed; the context is cut."""
    place = folder / "runs/read_a_k_curve"
    shown, other = (
        value(curve(place / "eval", "word_label", part=part), 4) for part in ("query_seen", "query_unseen")
    )
    gold, flipped = (
        value(curve(place / "eval", "word_label", condition=name), 16) for name in ("gold", "flipped_labels")
    )
    fitted = curve(place / "eval_short", "cipher").points[16].k_effective
    return [
        Claim(f"word_label at K = 4: {shown:.2f} if shown, {other:.2f} if not", shown > other + 0.4),
        Claim(f"word_label at K = 16: {gold:.2f}, labels flipped {flipped:.2f}", gold > flipped + 0.4),
        Claim(f"{fitted:.1f} of 16 demonstrations fit into 64 tokens", 0 < fitted < 16),
    ]


def public_weights(folder: Path) -> list[Claim]:
    """Each task was asked at each K, whatever the weights."""
    found = []
    for task in ("capitals", "opposites", "reviews"):
        asked = curve(folder / "runs/public_weights/eval", task)
        text = f"{task}: {value(asked, 0):.2f} at K = 0, {value(asked, 16):.2f} at K = 16"
        found.append(Claim(text, list(asked.points) == [0, 1, 2, 4, 8, 16]))
    return found


CLAIMS: Mapping[str, Callable[[Path], list[Claim]]] = {
    "first_steps": first_steps,
    "your_own_task": your_own_task,
    "read_a_k_curve": read_a_k_curve,
    "public_weights": public_weights,
}
"""What each notebook claims, of the folder that it ran in."""


def run(name: str, folder: Path, parameters: Mapping[str, Any]) -> bool:
    """Runs a notebook in a folder and says what came of it; whether all that it claims holds."""
    folder.mkdir(parents=True)
    began = time.monotonic()
    try:
        notebook = execute(notebooks()[name], folder, parameters)
    except CellExecutionError as error:
        print(f"{name}: failed after {time.monotonic() - began:.0f} s\n{error}")
        return False
    seconds = time.monotonic() - began
    nbformat.write(notebook, folder / f"{name}.ipynb")
    claims = [Claim(f"{seconds:.0f} s, at most {SECONDS}", seconds <= SECONDS), *CLAIMS[name](folder)]
    claims.append(Claim(f"{len(figures(notebook))} figure(s)", bool(figures(notebook))))
    print(
        name, *(f"  {'ok ' if claim.holds else 'NOT'} {claim.text}" for claim in claims), sep="\n", flush=True
    )
    return all(claim.holds for claim in claims)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(CLAIMS)} (default: all)")
    parser.add_argument("--output", type=Path, help="folder to make (default: a temporary one)")
    parser.add_argument("--model", type=Path, help="Hugging Face folder that public_weights reads")
    settings = parser.parse_args(arguments)
    names = settings.names or list(CLAIMS)
    if unknown := [name for name in names if name not in CLAIMS]:
        parser.error(f"no notebook {unknown[0]!r}; there are {', '.join(CLAIMS)}")
    if settings.output and settings.output.exists():
        parser.error(f"--output {settings.output} exists: expected a folder to make")
    output = (settings.output or Path(tempfile.mkdtemp(prefix="notebooks-"))).absolute()
    given = {"public_weights": {"MODELS": (str(settings.model.absolute()),)}} if settings.model else {}
    held = [run(name, output / name, given.get(name, {})) for name in names]
    print(f"as they came out: {output}")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())

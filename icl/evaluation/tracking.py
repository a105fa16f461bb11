"""What trackers show of an evaluation: scores by task and K, K-curve figures, sample prompts with answers.

Everything is made from results and records, at the step of its checkpoint. The same evaluation writes the
same event files, so running it again adds nothing.
"""

import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from icl.evaluation.curves import (
    by_task,
    condition_name,
    conditions,
    curves,
    main_metric,
    models,
    wording_name,
    wordings,
)
from icl.evaluation.records import Record, Result, write_file
from icl.evaluation.results import CONDITION, TEMPLATE
from icl.evaluation.subjects import Subject
from icl.tracking.config import TrackingConfig
from icl.tracking.tensorboard import PREFIX, TensorBoard, file_name
from icl.tracking.tracker import Sample, Tracker
from icl.tracking.weights_and_biases import WeightsAndBiases

TENSORBOARD = "tensorboard"
FIGURES = ("k_curve.png", "k_curve_tasks.png", "by_size.png")
"""Of the report, in its folder."""
_ALL = ""
"""What concerns all checkpoints together stands under no run's name."""


class Page(NamedTuple):
    """What there is to see of one checkpoint, or of all together.

    Attributes:
      run: The run that it is of; "" for all.
      step: Its step; the last one of all.
      time: When it was saved, in seconds since 1970.
      scores: By name, `METRIC/TASK/WORDING/kNN`.
      figures: PNG files by name.
      samples: Prompts with answers by name.
    """

    run: str
    step: int
    time: float
    scores: Mapping[str, float]
    figures: Mapping[str, bytes]
    samples: Mapping[str, Sequence[Sample]]

    def show(self, tracker: Tracker, prefix: str = "") -> None:
        """Tells a tracker, with a prefix before all names."""
        if self.scores:
            tracker.scalars(self.step, {f"{prefix}{name}": value for name, value in self.scores.items()})
        for name, png in self.figures.items():
            tracker.figure(self.step, f"{prefix}{name}", png)
        for name, samples in self.samples.items():
            tracker.samples(self.step, f"{prefix}{name}", samples)


def show_evaluation(
    config: TrackingConfig,
    folder: Path,
    subjects: Sequence[Subject],
    results: Sequence[Result],
    records: Mapping[str, Sequence[Record]],
    settings: Mapping[str, Any],
) -> None:
    """Writes the event files of an evaluation, and logs it to Weights & Biases if that was asked for.

    Args:
      config: Where to show it.
      folder: The evaluation's, with the report's figures in it.
      subjects: The checkpoints.
      results: Of all.
      records: Of each checkpoint by its label; those with a prompt are shown.
      settings: Of the evaluation, for Weights & Biases.

    Raises:
      InputError: the folder cannot be written to, or Weights & Biases does not let a run begin.
    """
    shown = pages(subjects, results, records, folder)
    if config.tensorboard:
        write_tensorboard(folder / TENSORBOARD, shown)
    if config.wandb_project:
        log_to_wandb(config, folder, shown, settings)


def pages(
    subjects: Sequence[Subject],
    results: Sequence[Result],
    records: Mapping[str, Sequence[Record]],
    folder: Path,
) -> list[Page]:
    """What there is to see, in the order of steps; arguments as for `show_evaluation`."""
    found = [
        Page(
            run=subject.run,
            step=subject.description.step,
            time=_saved_at(subject),
            scores=_scores(results, subject.label),
            figures={},
            samples=_samples(records[subject.label]),
        )
        for subject in subjects
    ]
    found.sort(key=lambda page: page.step)
    drawn = {path.stem: path.read_bytes() for name in FIGURES if (path := folder / name).exists()}
    last = max(page.time for page in found)
    figures = {f"figures/{name}": png for name, png in drawn.items()}
    return [*found, Page(_ALL, found[-1].step, last, {}, figures, {})]


def write_tensorboard(folder: Path, shown: Sequence[Page]) -> None:
    """Writes event files, one a run, in place of those that are there."""
    runs = list(dict.fromkeys(page.run for page in shown))
    written = set()
    for run, place in zip(runs, _places(runs), strict=True):
        of_run = [page for page in shown if page.run == run]
        path = folder / place / file_name(int(of_run[0].time), "evaluation")
        write_file(path, _events(of_run))
        written.add(path)
    for path in folder.rglob(f"{PREFIX}*"):
        if path not in written:
            path.unlink()


def log_to_wandb(
    config: TrackingConfig, folder: Path, shown: Sequence[Page], settings: Mapping[str, Any]
) -> None:
    """Logs everything to one run of Weights & Biases, the evaluation's; what is there already stays.

    Raises:
      InputError: Weights & Biases does not let the run begin.
    """
    runs = {page.run for page in shown} - {_ALL}
    tracker = WeightsAndBiases(config, folder, "evaluate", settings)
    for page in shown:
        page.show(tracker, f"{page.run}/" if len(runs) > 1 and page.run else "")
    tracker.close()


def _events(shown: Sequence[Page]) -> bytes:
    """An event file. Its times are those of the checkpoints, so it does not depend on when it is written."""
    now = shown[0].time
    file = io.BytesIO()
    tracker = TensorBoard(file, lambda: now)
    for page in shown:
        now = page.time
        page.show(tracker)
    return file.getvalue()


def _places(runs: Sequence[str]) -> list[str]:
    """A folder's name for each run, in no other folder; all together have the folder above."""
    places: list[str] = []
    for run in runs:
        name = re.sub(r"[^\w.@=+-]+", "-", run).strip("-.")
        place = name if name or run == _ALL else "run"
        while place in places:
            place += "_"
        places.append(place)
    return places


def _saved_at(subject: Subject) -> float:
    folder = subject.folder / str(subject.description.step)
    return next((path.stat().st_mtime for path in (folder, subject.folder) if path.exists()), 0.0)


def _scores(results: Sequence[Result], label: str) -> dict[str, float]:
    """What each task is judged by; shares are in 0..1, conditions other than gold labels have their name."""
    found: dict[str, float] = {}
    for task, rows in by_task(row for row in results if row.checkpoint == label).items():
        metric = main_metric(rows, task)
        for instruction, condition in itertools.product(wordings(rows), conditions(rows)):
            wording = wording_name(instruction).replace(" ", "_")
            place = "/".join([metric, task, wording] + [condition] * (condition != CONDITION))
            for curve in models(curves(rows, task, instruction, metric=metric, condition=condition)):
                found |= {f"{place}/k{k:02d}": row.value for k, row in curve.points.items()}
    return found


def _samples(records: Iterable[Record]) -> dict[str, list[Sample]]:
    """Of each task the first prompts that were kept: with no, one and the most demonstrations, by wording."""
    kept: dict[str, dict[tuple[bool, int], Record]] = {}
    for record in sorted((r for r in records if r.prompt is not None), key=_plainness):
        kept.setdefault(record.task, {}).setdefault((record.instruction, record.k), record)
    found = {}
    for task, by_form in kept.items():
        ks = sorted({k for _, k in by_form})
        shown = {*ks[:2], ks[-1]}
        found[f"prompts/{task}"] = [_sample(by_form[form]) for form in sorted(by_form) if form[1] in shown]
    return found


def _plainness(record: Record) -> tuple[bool, bool]:
    """Sorts the tasks' own labels and format first."""
    return record.condition != CONDITION, record.template != TEMPLATE


def _sample(record: Record) -> Sample:
    said = [f"K = {record.k_effective}", wording_name(record.instruction)]
    said += [condition_name(record.condition)] if record.condition != CONDITION else []
    said += [f"format {record.template}"] if record.template != TEMPLATE else []
    return Sample(
        title=", ".join(said),
        prompt=record.prompt or "",
        answer=record.prediction.strip(),
        gold=record.gold.strip(),
        is_right=bool(record.exact_match),
    )

"""Runs an evaluation: plans, asks each checkpoint shard by shard, and writes records, results and report.

An interrupted run continues with the shards that are missing. Results are made from the records on disk,
so that an evaluation in pieces and one in a single go end in the same bytes.
"""

import dataclasses
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from icl import model
from icl.data.keys import digest
from icl.data.tokenizer import Tokenizer, tokenizer_from_json
from icl.errors import InputError, check_is_no_url
from icl.evaluation.answers import make_record
from icl.evaluation.config import EvalConfig
from icl.evaluation.differences import differences
from icl.evaluation.plan import Plan, Trial, make_plan
from icl.evaluation.planning import detectable_difference
from icl.evaluation.records import Record, Result, read_records, write_file, write_lines
from icl.evaluation.report import write_report
from icl.evaluation.requests import Key, Shape, choose_shapes, trial_requests
from icl.evaluation.results import baseline_results, model_results
from icl.evaluation.savings import Reading, reading
from icl.evaluation.scoring import Answer, Decoding, Scorer
from icl.evaluation.stops import stop_transitions
from icl.evaluation.subjects import Subject, find_subjects
from icl.evaluation.table import k_curve_table
from icl.evaluation.tracking import show_evaluation
from icl.model.config import ModelConfig
from icl.parallel import MeshConfig, Partitioner, make_mesh
from icl.parallel.hosts import from_first
from icl.parallel.speed import peak_flops
from icl.progress import Progress
from icl.tasks.registry import Family, build_tasks, rebuild
from icl.tasks.registry import describe as describe_families
from icl.tasks.task import Task
from icl.tracking.config import TrackingConfig, check_installed

Overrides = Mapping[str, Mapping[str, Any] | Family]

MANIFEST = "evaluation.json"
RESULTS = "results.jsonl"
DIFFERENCES = "differences.jsonl"
REPORT = "report.html"
TRIALS_PER_SHARD = 256
_TENSORBOARD = TrackingConfig()
_USED = 0.25
"""Share of the device's FLOP/s that reading prompts is taken to reach, for the dry run's time."""


class Shard(NamedTuple):
    """A file of records and the trials that it holds."""

    path: Path
    trials: tuple[Trial, ...]


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A checkpoint with what it is asked, in shards; the shapes of a task hold all of its requests."""

    subject: Subject
    tokenizer: Tokenizer
    plan: Plan
    shapes: Mapping[str, tuple[Shape, ...]]
    reading: Reading
    shards: tuple[Shard, ...]

    @property
    def missing(self) -> tuple[Shard, ...]:
        """The shards that are not there yet."""
        return tuple(shard for shard in self.shards if not shard.path.exists())


def evaluate(
    checkpoints: Sequence[str | Path],
    config: EvalConfig,
    output_dir: str | Path,
    *,
    overrides: Overrides | None = None,
    step: int | None = None,
    mesh: MeshConfig | None = None,
    tracking: TrackingConfig = _TENSORBOARD,
    records_only: bool = False,
) -> list[Result]:
    """Evaluates checkpoints and writes records, `results.jsonl`, figures, `report.html` and `tensorboard/`.

    Args:
      checkpoints: Run folders, their `checkpoints/`, or one `checkpoints/STEP`.
      config: What to ask.
      output_dir: Where to write; an interrupted evaluation in it is continued.
      overrides: By mixture entry, settings that replace what the checkpoint says of its tasks, or a whole
        family, as `{"files": FileTasks(glob="mine.jsonl")}`.
      step: Which step of every checkpoint; the newest by default.
      mesh: How devices divide parameters and requests; by default all on the first device, and on several
        hosts each device its part of the requests.
      tracking: Where else scores, figures and sample prompts are shown.
      records_only: Write records and nothing made from them, as for the many checkpoints of a training.

    Returns:
      The results; none where they are not made, nor on any host but the first, which writes them.

    Raises:
      InputError: bad settings, tasks or checkpoints, a folder that holds another evaluation, or Weights &
        Biases was asked for and is not installed or does not let a run begin.
    """
    output_dir = Path(output_dir)
    check_installed(tracking)
    assignments = assign(checkpoints, config, output_dir, overrides=overrides, step=step)
    manifest = _manifest(config, assignments)
    _refuse_another(output_dir, manifest)
    if mesh is None and jax.process_count() > 1:
        mesh = MeshConfig()
    partitioner = None if mesh is None else Partitioner(make_mesh(mesh))
    missing = [_agreed(assignment.missing, assignment.shards) for assignment in assignments]
    total = sum(len(a.plan) for a in assignments)
    still = sum(len(shard.trials) for shards in missing for shard in shards)
    is_first = jax.process_index() == 0
    with Progress("evaluation", total, done=total - still, unit="trial", is_shown=is_first) as progress:
        for assignment, shards in zip(assignments, missing, strict=True):
            progress.rename(assignment.subject.label)
            for shard, records in _asked(assignment, shards, config, partitioner, progress):
                if is_first:
                    write_file(output_dir / MANIFEST, manifest)
                    write_lines(shard.path, records)
    return _written(assignments, config, output_dir, tracking) if is_first and not records_only else []


def _agreed(missing: Sequence[Shard], shards: Sequence[Shard]) -> list[Shard]:
    """The shards that the first host misses, so that all hosts ask the same."""
    is_missing = from_first(np.array([shard in missing for shard in shards], np.int32))
    return [shard for shard, asked in zip(shards, is_missing, strict=True) if asked]


def _written(
    assignments: Sequence[Assignment], config: EvalConfig, output_dir: Path, tracking: TrackingConfig
) -> list[Result]:
    """Results, differences, figures, report and what trackers show, made from the records on disk."""
    results = baseline_results(_union([assignment.plan for assignment in assignments]), config)
    records: dict[str, list[Record]] = {}
    files: dict[tuple[str, str], list[str]] = defaultdict(list)
    for assignment in assignments:
        label = assignment.subject.label
        records[label] = [record for shard in assignment.shards for record in read_records(shard.path)]
        results += model_results(assignment.subject.source, records[label], assignment.plan, config)
        for shard in assignment.shards:
            files[label, shard.trials[0].task.name].append(shard.path.relative_to(output_dir).as_posix())
    found = differences(records)
    write_lines(output_dir / RESULTS, results)
    write_lines(output_dir / DIFFERENCES, found)
    write_report(
        output_dir / REPORT,
        results,
        [record for of_label in records.values() for record in of_label if record.prompt is not None],
        {a.subject.label: a.subject.description for a in assignments},
        config,
        differences=found,
        record_files=files,
    )
    print(k_curve_table(results))
    print(f"\nreport: {output_dir / REPORT}")
    settings = json.loads(_manifest(config, assignments))
    show_evaluation(tracking, output_dir, [a.subject for a in assignments], results, records, settings)
    return results


def describe(
    checkpoints: Sequence[str | Path],
    config: EvalConfig,
    output_dir: Path,
    *,
    overrides: Overrides | None = None,
    step: int | None = None,
) -> str:
    """What `evaluate` would ask, with the first prompt of each task; writes nothing. Arguments as there."""
    lines = []
    assignments = assign(checkpoints, config, output_dir, overrides=overrides, step=step)
    _refuse_another(output_dir, _manifest(config, assignments))
    rate = (peak_flops() or 0.0) * _USED
    for a in assignments:
        source = a.subject.source
        share = sum(len(shard.trials) for shard in a.missing) / len(a.plan)
        lines.append(
            f"{source.checkpoint}: step {source.step:,}, {source.params:,} parameters; {len(a.plan.trials)} "
            f"tasks, {a.plan.num_prompts:,} prompts, {share:.0%} still to ask; {a.reading.text()}"
        )
        if rate:
            seconds = share * a.reading.flops / rate
            lines.append(
                f"about {seconds / 60:,.1f} minutes to read them here, beside compiling and generating text"
            )
    for name, trials in _union([a.plan for a in assignments]).trials.items():
        first = trials[0]
        queries = len({trial.query.name for trial in trials})
        most = min(first.max_k, first.settings.ks[-1])
        lines.append(f"\n{name}: {queries} queries; {_power(trials, queries)}; the first, K = {most}:")
        lines.append(first.prompt(most))
    return "\n".join(lines)


def _power(trials: Sequence[Trial], queries: int) -> str:
    """The smallest difference between two models or conditions that answers to these queries would show."""
    clusters = len({trial.cluster for trial in trials})
    found = detectable_difference(clusters, queries, trials[0].settings.seeds)
    if found is None:
        return "one cluster, so no difference can be told from chance"
    return f"a difference of {100 * found:.0f} points is found with 80 % power"


def assign(
    checkpoints: Sequence[str | Path],
    config: EvalConfig,
    output_dir: Path,
    *,
    overrides: Overrides | None = None,
    step: int | None = None,
) -> list[Assignment]:
    """What each checkpoint will be asked, and where its records go; reads no parameters.

    Raises:
      InputError: as `evaluate`.
    """
    plans: dict[str, Plan] = {}
    costs: dict[str, tuple[Mapping[str, tuple[Shape, ...]], Reading]] = {}
    assignments = []
    for subject in find_subjects(checkpoints, step):
        description = subject.description
        tokenizer = tokenizer_from_json(description.tokenizer)
        entries = _overridden(description.tasks, overrides or {})
        length = _context_length(config, subject)
        key = digest(tokenizer.fingerprint, length, json.dumps(entries, sort_keys=True))
        if key not in plans:
            plans[key] = make_plan(config, build_tasks(rebuild(entries)), tokenizer, length)
        plan = plans[key]
        of_model = digest(key, str(description.model))
        if of_model not in costs:
            costs[of_model] = _shapes(plan, tokenizer, description.model)
        shapes, cost = costs[of_model]
        shards = tuple(_shards(subject, plan, config, output_dir))
        assignments.append(Assignment(subject, tokenizer, plan, shapes, cost, shards))
    return assignments


def _overridden(entries: Mapping[str, Mapping[str, Any]], overrides: Overrides) -> dict[str, Any]:
    """The checkpoint's task families with settings replaced, and families that it does not have added."""
    replaced = dict(entries)
    for name, changed in overrides.items():
        if isinstance(changed, Mapping):
            replaced[name] = {**entries.get(name, {}), **changed}
        else:
            replaced |= describe_families({name: changed})
    return replaced


def _context_length(config: EvalConfig, subject: Subject) -> int:
    longest = subject.description.model.max_length
    if config.max_length > longest:
        raise InputError(
            f"EvalConfig.max_length = {config.max_length}: expected at most {longest}, the context of "
            f"{subject.folder}"
        )
    return config.max_length or longest


def _shapes(
    plan: Plan, tokenizer: Tokenizer, config: ModelConfig
) -> tuple[dict[str, tuple[Shape, ...]], Reading]:
    """The shapes of every task, few for all tasks that are asked alike; and what reading everything costs."""
    counts: dict[tuple[Any, ...], Counter[Shape]] = defaultdict(Counter)
    kinds, cost = {}, Reading()
    for task, trials in plan.trials.items():
        requests = [request for trial in trials for request in trial_requests(trial, tokenizer)]
        settings = plan.settings[task]
        kinds[task] = (trials[0].budget > 0, trials[0].is_choice, settings.ks, settings.beam_width > 1)
        counts[kinds[task]].update(request.shape for request in requests)
        cost += reading(requests, config, is_shared=settings.demonstrations == "fixed")
    chosen = {
        kind: tuple(choose_shapes(of_kind, next(iter(plan.settings.values())).shapes))
        for kind, of_kind in counts.items()
    }
    return {task: chosen[kind] for task, kind in kinds.items()}, cost


def _shards(subject: Subject, plan: Plan, config: EvalConfig, output_dir: Path) -> Iterator[Shard]:
    """Files named by what is asked of which parameters, so that records can never be taken for others."""
    settings = json.dumps(dataclasses.asdict(config), sort_keys=True)
    for task, trials in plan.trials.items():
        for number, start in enumerate(range(0, len(trials), TRIALS_PER_SHARD)):
            content = digest(subject.label, subject.checksum, plan.fingerprint, settings, task, number)
            where = f"{subject.label}.{subject.description.step}.{task}.{number:04d}"
            name = re.sub(r"[^\w.@-]+", "-", where)[:150] + f".{content[:12]}.jsonl.gz"
            yield Shard(output_dir / "records" / name, trials[start : start + TRIALS_PER_SHARD])


def _manifest(config: EvalConfig, assignments: Sequence[Assignment]) -> bytes:
    """Which evaluation a folder holds: settings, parameters and prompts, as JSON."""
    subjects = [
        {
            "label": a.subject.label,
            "step": a.subject.description.step,
            "parameters": a.subject.checksum,
            "prompts": a.plan.fingerprint,
        }
        for a in assignments
    ]
    settings = {f"EvalConfig.{name}": value for name, value in dataclasses.asdict(config).items()}
    return (json.dumps({**settings, "checkpoints": subjects}, indent=1) + "\n").encode()


def _refuse_another(output_dir: Path, manifest: bytes) -> None:
    """Raises InputError if the folder is none, or holds another evaluation."""
    check_is_no_url(output_dir, "--output_dir")
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(f"--output_dir {output_dir} is a file; expected a folder")
    path = output_dir / MANIFEST
    if not path.exists():
        return
    wanted, held = json.loads(manifest), _read_manifest(path)
    differing = [name for name in {**wanted, **held} if wanted.get(name) != held.get(name)]
    if differing:
        raise InputError(
            f"--output_dir {output_dir} holds another evaluation ({', '.join(differing)} differ); "
            "expected the same settings and checkpoints, or another folder"
        )


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not the description of an evaluation; expected another folder") from error
    return held if isinstance(held, dict) else {}


def _asked(
    assignment: Assignment,
    shards: Sequence[Shard],
    config: EvalConfig,
    partitioner: Partitioner | None,
    progress: Progress,
) -> Iterator[tuple[Shard, list[Record]]]:
    """Shards of a checkpoint with their records; parameters are read only if there are any."""
    if not shards:
        return
    description = assignment.subject.description
    params = assignment.subject.restore(model.param_shardings(description.model, partitioner))
    pad_id = assignment.tokenizer.pad_id
    scorer = Scorer(description.model, params, config.batch_rows, pad_id, partitioner)
    for shard in shards:
        yield shard, list(_records(assignment, shard, scorer, progress))


def _records(assignment: Assignment, shard: Shard, scorer: Scorer, progress: Progress) -> Iterator[Record]:
    """The records of a shard, in the order of its trials and K."""
    tokenizer, trials = assignment.tokenizer, shard.trials
    task, settings = trials[0].task, trials[0].settings
    decoding = Decoding(
        tokenizer.end_ids[0],
        settings.beam_width,
        settings.length_penalty,
        settings.length_rule,
        settings.temperature,
    )
    vocab_size = assignment.subject.description.model.vocab_size
    stops = stop_transitions(tokenizer, task.template.delimiter, vocab_size)
    requests, owners = [], []
    for index, trial in enumerate(trials):
        found = trial_requests(trial, tokenizer)
        requests += found
        owners += [index] * len(found)
    answers: list[dict[Key, Answer]] = [{} for _ in trials]
    unread = Counter(owners)
    for number, answer in scorer.answers(requests, assignment.shapes[task.name], stops, decoding):
        owner = owners[number]
        answers[owner] |= answer
        unread[owner] -= 1
        progress.advance(int(unread[owner] == 0))
    for trial, answer in zip(trials, answers, strict=True):
        for k in settings.ks:
            yield make_record(assignment.subject.source, tokenizer, trial, k, answer, decoding.name)


def _union(plans: Sequence[Plan]) -> Plan:
    """One plan with the tasks of all; a task that several have is that of the first."""
    trials: dict[str, tuple[Trial, ...]] = {}
    tasks: dict[str, Task] = {}
    for plan in reversed(plans):
        trials |= plan.trials
        tasks |= plan.tasks
    order = [name for plan in plans for name in plan.trials]
    settings = {name: plan.settings[name] for plan in reversed(plans) for name in plan.settings}
    in_order = {name: trials[name] for name in order}
    return dataclasses.replace(plans[0], trials=in_order, tasks=tasks, settings=settings)

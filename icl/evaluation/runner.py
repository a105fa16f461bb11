"""Runs an evaluation: plans, asks each checkpoint shard by shard, and writes records, results and report.

An interrupted run continues with the shards that are missing. Results are made from the records on disk,
so that an evaluation in pieces and one in a single go end in the same bytes.
"""

import dataclasses
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from icl.data.keys import digest
from icl.data.tokenizer import Tokenizer, tokenizer_from_json
from icl.errors import InputError
from icl.evaluation.config import EvalConfig
from icl.evaluation.metrics import best, edit_distance, exact_match, option_scores, token_accuracy, word_f1
from icl.evaluation.plan import Plan, Trial, make_plan
from icl.evaluation.prompts import prompt_hash
from icl.evaluation.records import Record, Result, read_records, rounded, write_file, write_lines
from icl.evaluation.report import write_report
from icl.evaluation.results import CONDITION, TEMPLATE, baseline_results, model_results
from icl.evaluation.scoring import (
    Answer,
    Scorer,
    Shape,
    answer_text,
    choose_shapes,
    make_request,
    smallest_holding,
    stop_ids,
)
from icl.evaluation.subjects import Subject, find_subjects
from icl.evaluation.table import k_curve_table
from icl.tasks.registry import build_tasks, rebuild
from icl.tasks.task import Task
from icl.training.checkpoints import restore_params

MANIFEST = "evaluation.json"
RESULTS = "results.jsonl"
REPORT = "report.html"
TRIALS_PER_SHARD = 256


class Shard(NamedTuple):
    """A file of records and the trials that it holds."""

    path: Path
    trials: tuple[Trial, ...]


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A checkpoint with what it is asked, in shards; the shapes hold all of it."""

    subject: Subject
    tokenizer: Tokenizer
    plan: Plan
    shapes: tuple[Shape, ...]
    shards: tuple[Shard, ...]

    def positions(self, trials: int) -> int:
        """Positions that the model reads for so many trials, if all need the largest shape."""
        return trials * max(shape.positions for shape in self.shapes)


def evaluate(
    checkpoints: Sequence[str | Path],
    config: EvalConfig,
    output_dir: Path,
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    step: int | None = None,
) -> list[Result]:
    """Evaluates checkpoints and writes records, `results.jsonl`, figures and `report.html`.

    Args:
      checkpoints: Run folders, their `checkpoints/`, or one `checkpoints/STEP`.
      config: What to ask.
      output_dir: Where to write; an interrupted evaluation in it is continued.
      overrides: By mixture entry, settings that replace what the checkpoint says of its tasks.
      step: Which step of every checkpoint; the newest by default.

    Raises:
      InputError: bad settings, tasks or checkpoints, or a folder that holds another evaluation.
    """
    assignments = assign(checkpoints, config, output_dir, overrides=overrides, step=step)
    manifest = _manifest(config, assignments)
    _refuse_another(output_dir, manifest)
    missing = [sum(len(s.trials) for s in a.shards if not s.path.exists()) for a in assignments]
    total = sum(len(a.plan) for a in assignments)
    with tqdm(total=total, initial=total - sum(missing), unit="trial", file=sys.stderr, smoothing=0.1) as bar:
        for assignment in assignments:
            bar.set_description(assignment.subject.label)
            for shard, records in _asked(assignment, config, bar):
                write_file(output_dir / MANIFEST, manifest)
                write_lines(shard.path, records)
    results = baseline_results(_union([assignment.plan for assignment in assignments]), config)
    samples: list[Record] = []
    for assignment in assignments:
        records = [record for shard in assignment.shards for record in read_records(shard.path)]
        results += model_results(assignment.subject.source, records, assignment.plan, config)
        samples += [record for record in records if record.prompt is not None]
    write_lines(output_dir / RESULTS, results)
    provenance = {a.subject.label: a.subject.description for a in assignments}
    write_report(output_dir / REPORT, results, samples, provenance, config)
    print(k_curve_table(results))
    print(f"\nreport: {output_dir / REPORT}")
    return results


def describe(
    checkpoints: Sequence[str | Path],
    config: EvalConfig,
    output_dir: Path,
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    step: int | None = None,
) -> str:
    """What `evaluate` would ask, with the first prompt of each task; writes nothing. Arguments as there."""
    lines = []
    assignments = assign(checkpoints, config, output_dir, overrides=overrides, step=step)
    for a in assignments:
        source = a.subject.source
        missing = sum(len(shard.trials) for shard in a.shards if not shard.path.exists())
        lines.append(
            f"{source.checkpoint}: step {source.step:,}, {source.params:,} parameters; {len(a.plan.trials)} "
            f"tasks, {len(a.plan) * len(config.ks):,} prompts, {missing * len(config.ks):,} still to ask; "
            f"at most {a.positions(missing):,} positions to read"
        )
    for name, trials in _union([a.plan for a in assignments]).trials.items():
        first = trials[0]
        queries = len({trial.query.name for trial in trials})
        lines.append(f"\n{name}: {queries} queries; the first, K = {min(first.max_k, config.ks[-1])}:")
        lines.append(first.prompt(config.ks[-1]))
    return "\n".join(lines)


def assign(
    checkpoints: Sequence[str | Path],
    config: EvalConfig,
    output_dir: Path,
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    step: int | None = None,
) -> list[Assignment]:
    """What each checkpoint will be asked, and where its records go; reads no parameters.

    Raises:
      InputError: as `evaluate`.
    """
    plans: dict[str, tuple[Plan, tuple[Shape, ...]]] = {}
    assignments = []
    for subject in find_subjects(checkpoints, step):
        description = subject.description
        tokenizer = tokenizer_from_json(description.tokenizer)
        entries = _overridden(description.tasks, overrides or {})
        length = _context_length(config, subject)
        key = digest(tokenizer.fingerprint, length, json.dumps(entries, sort_keys=True))
        if key not in plans:
            plan = make_plan(config, build_tasks(rebuild(entries)), tokenizer, length)
            plans[key] = plan, _shapes(plan, tokenizer, config)
        plan, shapes = plans[key]
        shards = tuple(_shards(subject, plan, config, output_dir))
        assignments.append(Assignment(subject, tokenizer, plan, shapes, shards))
    return assignments


def _overridden(
    entries: Mapping[str, Mapping[str, Any]], overrides: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The checkpoint's task families with settings replaced, and families that it does not have added."""
    replaced = {name: {**entries.get(name, {}), **settings} for name, settings in overrides.items()}
    return {**entries, **replaced}


def _context_length(config: EvalConfig, subject: Subject) -> int:
    longest = subject.description.model.max_length
    if config.max_length > longest:
        raise InputError(
            f"EvalConfig.max_length = {config.max_length}: expected at most {longest}, the context of "
            f"{subject.folder}"
        )
    return config.max_length or longest


def _shapes(plan: Plan, tokenizer: Tokenizer, config: EvalConfig) -> tuple[Shape, ...]:
    trials = (trial for same_task in plan.trials.values() for trial in same_task)
    counts = Counter(make_request(trial, tokenizer, config.ks).shape for trial in trials)
    return tuple(choose_shapes(counts, config.shapes))


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
    assignment: Assignment, config: EvalConfig, progress: "tqdm[Any]"
) -> Iterator[tuple[Shard, list[Record]]]:
    """The missing shards of a checkpoint with their records; parameters are read only if some are missing."""
    missing = [shard for shard in assignment.shards if not shard.path.exists()]
    if not missing:
        return
    description = assignment.subject.description
    params, _ = restore_params(assignment.subject.folder, description.step)
    scorer = Scorer(description.model, params, config.batch_rows, assignment.tokenizer.pad_id)
    for shard in missing:
        yield shard, list(_records(assignment, shard, scorer, config, progress))


def _records(
    assignment: Assignment, shard: Shard, scorer: Scorer, config: EvalConfig, progress: "tqdm[Any]"
) -> Iterator[Record]:
    """The records of a shard, in the order of its trials and K."""
    tokenizer, trials = assignment.tokenizer, shard.trials
    stops = stop_ids(tokenizer, trials[0].task.template.delimiter)
    by_shape = defaultdict(list)
    requests = [make_request(trial, tokenizer, config.ks) for trial in trials]
    for index, request in enumerate(requests):
        by_shape[smallest_holding(assignment.shapes, request)].append(index)
    answers: dict[int, dict[int, Answer]] = {}
    for shape, indices in by_shape.items():
        asked = scorer.answers([requests[index] for index in indices], shape, stops)
        for number, answer in asked:
            answers[indices[number]] = answer
            progress.update()
    for index, trial in enumerate(trials):
        for k in config.ks:
            yield _record(assignment, trial, k, answers[index][min(k, trial.max_k)], config)


def _record(assignment: Assignment, trial: Trial, k: int, answer: Answer, config: EvalConfig) -> Record:
    template, example = trial.template(k), trial.query.example
    gold, right = template.completion(example), (example.target, *example.aliases)
    said: dict[str, Any] = {}
    scored, scoring = answer.options[0], "greedy"
    if trial.is_choice:
        said = _options(trial, answer)
        scored, scoring = answer.options[said["gold_option"]], f"options:{trial.task.option_rule}"
    else:
        said["prediction"] = answer_text(
            assignment.tokenizer, answer.generated, trial.budget, template.delimiter
        )
    prompt = trial.prompt(k)
    is_sample = trial.seed == 0 and trial.number < config.sample_prompts
    return Record(
        checkpoint=assignment.subject.label,
        step=assignment.subject.description.step,
        task=trial.task.name,
        split=config.split,
        instance=trial.query.instance.name,
        query=trial.query.name,
        cluster=trial.cluster,
        seed=trial.seed,
        k=k,
        k_effective=min(k, trial.max_k),
        instruction=trial.instructed,
        condition=CONDITION,
        demonstrations=config.demonstrations,
        template=TEMPLATE,
        prompt_sha256=prompt_hash(prompt),
        prompt_tokens=1 + len(assignment.tokenizer.encode(prompt)),
        lost=trial.lost,
        input=example.input,
        gold=gold,
        gold_tokens=len(scored.tokens),
        exact_match=exact_match(said["prediction"], right, trial.task.answer_rule),
        token_accuracy=rounded(token_accuracy(scored.tokens, scored.argmax)),
        log_likelihood=rounded(scored.log_likelihoods.mean()),
        edit_distance=rounded(edit_distance(said["prediction"], gold)),
        query_seen=trial.query_seen(k),
        scoring=scoring,
        f1=rounded(word_f1(said["prediction"], right)) if trial.task.answer_rule == "squad" else None,
        aliases=example.aliases,
        **said,
        prompt=prompt if is_sample else None,
    )


def _options(trial: Trial, answer: Answer) -> dict[str, Any]:
    """The fields of a record about its options, and what it predicts by the task's rule."""
    example = trial.query.example
    likelihoods, unconditional = (
        tuple(rounded(each.log_likelihoods.sum()) for each in scored)
        for scored in (answer.options, answer.unconditional)
    )
    lengths = tuple(len(each.tokens) for each in answer.options)
    scores = option_scores(example.choices, lengths, likelihoods, unconditional, example.ending)
    return {
        "options": example.choices,
        "ending": example.ending,
        "gold_option": example.choices.index(example.target),
        "option_tokens": lengths,
        "option_log_likelihoods": likelihoods,
        "unconditional_log_likelihoods": unconditional,
        "prediction": example.choices[best(scores[trial.task.option_rule])],
    }


def _union(plans: Sequence[Plan]) -> Plan:
    """One plan with the tasks of all; a task that several have is that of the first."""
    trials: dict[str, tuple[Trial, ...]] = {}
    tasks: dict[str, Task] = {}
    for plan in reversed(plans):
        trials |= plan.trials
        tasks |= plan.tasks
    order = [name for plan in plans for name in plan.trials]
    return dataclasses.replace(plans[0], trials={name: trials[name] for name in order}, tasks=tasks)

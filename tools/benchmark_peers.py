"""Times few-shot scoring of a four-option task against the evaluation harness and its Hugging Face model.

    python -m tools.benchmark_peers [--queries 16] [--layers 4] [--width 256] [--rounds 3] [--case fixed]

Both score the same weights on the same prompts: ours reads every demonstration once, the harness reads every
pair of prompt and option whole, once for each number of demonstrations. Its documents hold the whole prompt,
so that it has no demonstrations of its own to draw; of several batch sizes the fastest counts, and of its
time only what it spends on model requests. Ours counts from trials to likelihoods, compilation apart. On a
busy machine the two suffer unequally: there the ratio of processor times is the fairer one.
Wants the extra `peers` (torch, transformers, lm-eval); no network.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from icl import host_memory, model
from icl.data.tokenizer import ByteTokenizer
from icl.evaluation.config import Demonstrations
from icl.evaluation.plan import Trial
from icl.interop.huggingface import write_folder
from icl.model import ModelConfig
from tools.benchmark_eval import make_trials, shared_prefix

TOKENIZER = ByteTokenizer()
TOLERANCE = 1e-3
INIT_STD = 0.1

Found = dict[tuple[int, int, int], float]
"""Log-likelihoods by number of the trial, K and number of the option."""


class Spent(NamedTuple):
    """Seconds: on the clock, of all processors together, and on the clock with what stands around."""

    clock: float
    processors: float
    total: float


class Case(NamedTuple):
    """What is asked, and how many times faster it has to be."""

    name: str
    demonstrations: Demonstrations
    ks: tuple[int, ...]
    bar: float


CASES = (
    Case("K = 8, demonstrations drawn for each query", "per_query", (8,), 3),
    Case("K = 0 to 32, one fixed set of demonstrations", "fixed", (0, 1, 2, 4, 8, 16, 32), 15),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 1 where likelihoods differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3, help="both are timed in each; the fastest counts")
    parser.add_argument("--case", choices=[case.demonstrations for case in CASES], help="this one alone")
    parser.add_argument("--batch_sizes", default="1,8,32", help="of the harness; the fastest counts")
    settings = parser.parse_args(arguments)
    batch_sizes = tuple(int(size) for size in settings.batch_sizes.split(","))
    cases = [case for case in CASES if settings.case in (None, case.demonstrations)]
    host_memory.keep_freed_memory()
    asked = [(case, make_trials(settings.queries, case.ks, case.demonstrations)) for case in cases]
    longest = max(
        len(option.full)
        for case, trials in asked
        for trial in trials
        for option in trial.options(TOKENIZER, case.ks[-1])
    )
    config = ModelConfig(
        vocab_size=TOKENIZER.vocab_size,
        num_layers=settings.layers,
        embed_dim=settings.width,
        num_heads=max(1, settings.width // 64),
        max_length=-(-longest // 64) * 64,
    )
    params = random_params(config)
    with tempfile.TemporaryDirectory() as folder:
        try:
            harness = Harness(Path(folder), config, params, batch_sizes)
        except ImportError as error:
            print(f"{error}; expected the extra 'peers': pip install -e '.[peers]'", file=sys.stderr)
            return 2
        print(f"{model.num_params(config):,} parameters, prompts of up to {longest:,} bytes; {harness}")
        apart = [compare(case, trials, config, params, harness, settings.rounds) for case, trials in asked]
    return 0 if max(apart) < TOLERANCE else 1


def random_params(config: ModelConfig, std: float = INIT_STD) -> Any:
    """Weights and biases large enough that options differ by several nats; scales of norms around one."""
    rng = np.random.default_rng(0)

    def leaf(path: Any, shaped: Any) -> Any:
        mean = float(getattr(path[-1], "key", None) == "scale")
        return rng.normal(mean, std, shaped.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, model.abstract_params(config))


class Harness:
    """The harness with its Hugging Face model of the same weights and the same tokens."""

    def __init__(self, folder: Path, config: ModelConfig, params: Any, batch_sizes: Sequence[int]) -> None:
        """Writes the model to the folder and loads it.

        Raises:
          ImportError: the extra `peers` is not installed.
        """
        # Before the imports, which read them.
        os.environ |= {
            "HF_HOME": str(folder / "hub"),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "LMEVAL_LOG_LEVEL": "ERROR",
        }
        import lm_eval
        import torch
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        self._folder = folder
        self._lm_eval = lm_eval
        self._tasks = TaskManager(include_defaults=False)
        cores = os.cpu_count() or 1
        torch.set_num_threads(cores)
        write_folder(folder / "model", config, params, TOKENIZER)
        settings = {"device": "cpu", "dtype": "float32", "add_bos_token": True}
        with contextlib.redirect_stderr(io.StringIO()):  # bars of progress
            self._models = {
                size: HFLM(str(folder / "model"), batch_size=size, **settings) for size in batch_sizes
            }
        threads = f"{torch.get_num_threads()} threads of torch {torch.__version__} on {cores} cores"
        self._named = f"lm-eval {lm_eval.__version__}, {threads}, jax {jax.__version__}"

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Those it can be run with."""
        return tuple(self._models)

    def __str__(self) -> str:
        return self._named

    def run(self, trials: Sequence[Trial], ks: Sequence[int], batch_size: int) -> tuple[Found, Spent]:
        """Scores all options, in one run of the harness for each K."""
        scorer = self._models[batch_size]
        inner, spent = scorer.loglikelihood, []

        def requests_timed(requests: Any, **options: Any) -> Any:
            answers, seconds = timed(lambda: inner(requests, **options))
            spent.append(seconds)
            return answers

        scorer.loglikelihood = requests_timed
        found: Found = {}
        began = time.monotonic()
        for k in ks:
            task = self._task(trials, k)
            with contextlib.redirect_stderr(io.StringIO()):  # bars of progress
                results = self._lm_eval.simple_evaluate(
                    model=scorer, tasks=[task], task_manager=self._tasks, bootstrap_iters=0
                )
            for sample in results["samples"][task["task"]]:
                for option, response in enumerate(sample["filtered_resps"]):
                    found[sample["doc"]["number"], k, option] = float(response[0])
        total = time.monotonic() - began
        del scorer.loglikelihood
        return found, Spent(sum(s.clock for s in spent), sum(s.processors for s in spent), total)

    def check_tokens(self, trials: Sequence[Trial], ks: Sequence[int]) -> None:
        """Raises AssertionError where both do not read the same token ids, prompt and option apart."""
        encode_pair = next(iter(self._models.values()))._encode_pair
        for trial in trials:
            for k in ks:
                for option, text in zip(trial.options(TOKENIZER, k), completions(trial), strict=True):
                    theirs = encode_pair(trial.prompt(k), text)
                    assert theirs == (option.full[: option.gold_start], option.full[option.gold_start :])

    def _task(self, trials: Sequence[Trial], k: int) -> dict[str, Any]:
        """A task of the harness whose documents are whole prompts."""
        # A new name each time, as the harness keeps what it read of a file.
        path = self._folder / f"{trials[0].task.name}_{len(list(self._folder.glob('*.json')))}.json"
        prefix = trials[0].task.template.target_prefix
        with path.open("w") as file:
            for number, trial in enumerate(trials):
                choices = [text.removeprefix(prefix) for text in completions(trial)]
                gold = trial.query.example.choices.index(trial.query.example.target)
                document = {"number": number, "prompt": trial.prompt(k), "choices": choices, "gold": gold}
                file.write(json.dumps(document) + "\n")
        return {
            "task": path.stem,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(path)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "prompt",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "target_delimiter": prefix,
            "num_fewshot": 0,
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }


def completions(trial: Trial) -> list[str]:
    """The options of a trial as they are appended to its prompt."""
    prefix = trial.task.template.target_prefix
    return [prefix + choice for choice in trial.query.example.choices]


def compare(
    case: Case, trials: Sequence[Trial], config: ModelConfig, params: Any, harness: Harness, rounds: int
) -> float:
    """Scores a case both ways, in turns; prints times and returns the largest difference of a likelihood."""
    harness.check_tokens(trials, case.ks)

    def ours() -> Found:
        return shared_prefix(config, params, trials)

    found, first = timed(ours)
    harness.run(trials[:1], case.ks[:1], harness.batch_sizes[0])  # what is done once is not held against it
    tried = {size: harness.run(trials, case.ks, size) for size in harness.batch_sizes}
    best = min(harness.batch_sizes, key=lambda size: tried[size][1].clock)
    apart = max(largest_difference(found, answers) for answers, _ in tried.values())
    theirs, mine = [tried[best][1]], [timed(ours)[1]]
    for _ in range(rounds - 1):
        theirs.append(harness.run(trials, case.ks, best)[1])
        mine.append(timed(ours)[1])
    spread = np.mean(
        [
            np.std([found[number, case.ks[-1], option] for option in range(len(completions(trial)))])
            for number, trial in enumerate(trials)
        ]
    )
    print(f"\n{case.name}: {len(found):,} prompts with options, {len(trials)} queries")
    print(f"  largest difference of a log-likelihood: {apart:.1e} nats")
    print(f"  standard deviation of those of a query's options: {spread:.1f}")
    sizes = (f"{size}: {spent.clock:.2f} s" for size, (_, spent) in tried.items())
    print(f"  harness by batch size, first round: {', '.join(sizes)}")
    _report(case, theirs, mine, first)
    return apart


def _report(case: Case, theirs: Sequence[Spent], mine: Sequence[Spent], first: Spent) -> None:
    """Prints times; the fastest round of each counts."""
    clock, processors, total = (min(values) for values in zip(*theirs, strict=True))
    our_clock, our_processors, _ = (min(values) for values in zip(*mine, strict=True))
    rounds = ", ".join(f"{a.clock / b.clock:.1f}" for a, b in zip(theirs, mine, strict=True))
    requests = f"{clock:.2f} s of model requests ({processors:.2f} of processors)"
    print(f"  harness: {requests}, {total:.2f} s in all")
    print(
        f"  ours: {our_clock:.2f} s ({our_processors:.2f} of processors); compiled first {first.clock:.2f} s"
    )
    print(f"  ratio {clock / our_clock:.1f}, expected at least {case.bar:g}; by rounds {rounds}")
    print(f"  ratio of processor times {processors / our_processors:.1f}")
    print(f"  ratio with all that the harness does {total / our_clock:.1f}")
    print(f"  ratio with our compilation {clock / first.clock:.2f}")


def timed(run: Callable[[], Any]) -> tuple[Any, Spent]:
    """What a run gives, and what it took."""
    clock, processors = time.monotonic(), time.process_time()
    found = run()
    took = time.monotonic() - clock
    return found, Spent(took, time.process_time() - processors, took)


def largest_difference(ours: Found, theirs: Found) -> float:
    """The largest difference of a log-likelihood; both have the same requests, all of them finite."""
    assert ours.keys() == theirs.keys()
    values = np.array([[ours[place], theirs[place]] for place in ours])
    assert np.isfinite(values).all()
    return float(np.abs(values[:, 0] - values[:, 1]).max())


if __name__ == "__main__":
    sys.exit(main())

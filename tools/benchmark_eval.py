"""Times few-shot scoring of a four-option task against the same prompts each read whole.

    python tools/benchmark_eval.py [--queries 32] [--layers 4] [--width 256] [--ks 0,1,2,4,8,16,32]

Ours reads the demonstrations of a query once, for all numbers of them and all options. The other way, that
of general harnesses, reads every pair of prompt and option as a sequence of its own, in batches of like
length, with logits at the option's positions only; of several batch sizes the fastest counts. Both run the
same model in the same process, and their log-likelihoods are held against each other. Tokens and FLOPs are of
what has to be read, padding left out; the time is what it took, padding and all, after compilation.
"""

import argparse
import functools
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icl import host_memory, model
from icl.data.keys import generator
from icl.data.tokenizer import ByteTokenizer
from icl.evaluation.config import Demonstrations, EvalConfig
from icl.evaluation.plan import Trial, make_plan
from icl.evaluation.requests import choose_shapes, trial_requests
from icl.evaluation.savings import reading
from icl.evaluation.scoring import Decoding, Scorer
from icl.evaluation.stops import stop_transitions
from icl.model import ModelConfig
from icl.tasks.pool import PoolTask
from icl.tasks.task import Example, Template

TOKENIZER = ByteTokenizer()
BATCH_TOKENS = (2**11, 2**12, 2**13)
_LETTERS = list("etaoinshrdlucm")


class Whole(NamedTuple):
    """A prompt with an option: its tokens, from where the option is scored, and whose it is."""

    tokens: list[int]
    start: int
    place: tuple[int, int, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--fixed", action="store_true", help="one set of demonstrations for all queries")
    parser.add_argument("--ks", default="0,1,2,4,8,16,32", help="numbers of demonstrations")
    parser.add_argument("--rounds", type=int, default=3, help="the fastest counts")
    settings = parser.parse_args(arguments)
    host_memory.keep_freed_memory()
    ks = tuple(int(k) for k in settings.ks.split(","))
    trials = make_trials(settings.queries, ks, "fixed" if settings.fixed else "per_query")
    longest = max(len(option.full) for trial in trials for option in trial.options(TOKENIZER, ks[-1]))
    config = ModelConfig(
        vocab_size=TOKENIZER.vocab_size,
        num_layers=settings.layers,
        embed_dim=settings.width,
        num_heads=max(1, settings.width // 64),
        positions="rotary",
        max_length=-(-longest // 64) * 64,
    )
    params = model.init_params(config, jax.random.key(0))
    whole = list(whole_prompts(trials, ks))
    shared, ours = timed(lambda: shared_prefix(config, params, trials), settings.rounds)
    runs = {n: timed(lambda n=n: each_alone(config, params, whole, n), settings.rounds) for n in BATCH_TOKENS}
    fastest = min(runs, key=lambda n: runs[n][1])
    alone, theirs = runs[fastest]
    print(f"each alone, by positions a batch: {', '.join(f'{n:,} {runs[n][1]:.2f} s' for n in runs)}")
    apart = max(abs(shared[place] - alone[place]) for place in alone)
    _report(config, trials, whole, ours, theirs, apart)
    return 0 if apart < 1e-2 else 1


def make_trials(queries: int, ks: Sequence[int], demonstrations: Demonstrations) -> list[Trial]:
    """Questions of some 60 letters with four options of some 12."""
    rng = generator("benchmark of evaluation")

    def text(least: int, most: int) -> str:
        return "".join(rng.choice(_LETTERS, rng.integers(least, most)))

    pool = []
    for _ in range(queries + 5 * max(ks) + 200):
        choices = tuple(text(8, 17) for _ in range(4))
        question = text(40, 80)
        pool.append(Example(question, choices[rng.integers(4)], question, choices))
    task = PoolTask(
        "four_options",
        Template(separator="\nAnswer:", target_prefix=" ", delimiter="\n\n"),
        pool[queries:],
        where="the benchmark",
        tested=pool[:queries],
    )
    config = EvalConfig(
        ks=tuple(ks), seeds=1, queries=queries, instruction=(False,), demonstrations=demonstrations
    )
    return list(make_plan(config, {"four": (task,)}, TOKENIZER, 2**20).trials["four_options"])


def whole_prompts(trials: Sequence[Trial], ks: Sequence[int]) -> Iterator[Whole]:
    """Every prompt with every option."""
    for number, trial in enumerate(trials):
        for k in ks:
            for option, tokens in enumerate(trial.options(TOKENIZER, k)):
                yield Whole(tokens.full, tokens.gold_start, (number, k, option))


def shared_prefix(config: ModelConfig, params: Any, trials: Sequence[Trial]) -> dict[Any, float]:
    """Log-likelihoods by (trial, K, option), as `icl.eval` finds them."""
    requests = [request for trial in trials for request in trial_requests(trial, TOKENIZER)]
    shapes = choose_shapes(Counter(request.shape for request in requests), 2)
    scorer = Scorer(config, params, 64, TOKENIZER.pad_id)
    stops = stop_transitions(TOKENIZER, trials[0].template.delimiter, config.vocab_size)
    found = {}
    for number, answers in scorer.answers(requests, shapes, stops, Decoding(TOKENIZER.start_id)):
        for key, answer in answers.items():
            for option, scored in enumerate(answer.options):
                found[number, key.k, option] = float(scored.log_likelihoods.sum())
    return found


def each_alone(config: ModelConfig, params: Any, whole: Sequence[Whole], positions: int) -> dict[Any, float]:
    """The same, each sequence from its start; batches of so many positions, of lengths in steps of 64."""
    ordered = sorted(whole, key=lambda each: -len(each.tokens))
    found, pending = {}, []
    first = 0
    while first < len(ordered):
        length = -(-len(ordered[first].tokens) // 64) * 64
        batch = ordered[first : first + max(1, positions // length)]
        rows = max(1, positions // length)
        tokens_BT = np.full((rows, length), TOKENIZER.pad_id, np.int32)
        starts_B = np.ones(rows, np.int32)
        for row, each in enumerate(batch):
            tokens_BT[row, : len(each.tokens)] = each.tokens
            starts_B[row] = each.start
        pending.append((batch, _option_likelihoods(config, params, tokens_BT, starts_B)))
        first += len(batch)
    for batch, values_BA in pending:
        for each, values_A in zip(batch, np.asarray(values_BA), strict=False):
            found[each.place] = float(values_A[: len(each.tokens) - each.start].sum())
    return found


@functools.partial(jax.jit, static_argnums=0)
def _option_likelihoods(config: ModelConfig, params: Any, tokens_BT: Any, starts_B: Any) -> jax.Array:
    """Log-likelihoods of up to 24 tokens from each row's start on."""
    positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1])[None], tokens_BT.shape)
    hidden_BTD = model.hidden_states(config, params, tokens_BT, jnp.ones_like(positions_BT), positions_BT)
    at_BA = jnp.minimum(starts_B[:, None] + jnp.arange(24)[None], tokens_BT.shape[1] - 1)
    before_BAD = jnp.take_along_axis(hidden_BTD, (at_BA - 1)[..., None], axis=1)
    logits_BAV = jax.nn.log_softmax(model.unembed(config, params, before_BAD))
    next_BA1 = jnp.take_along_axis(tokens_BT, at_BA, axis=1)[..., None]
    return jnp.take_along_axis(logits_BAV, next_BA1, axis=2)[..., 0]


def timed(run: Any, rounds: int) -> tuple[dict[Any, float], float]:
    """What a run gives, and the seconds of its fastest round after a first that compiles."""
    found = run()
    seconds = []
    for _ in range(rounds):
        began = time.monotonic()
        run()
        seconds.append(time.monotonic() - began)
    return found, min(seconds)


def _report(
    config: ModelConfig,
    trials: Sequence[Trial],
    whole: Sequence[Whole],
    ours: float,
    theirs: float,
    apart: float,
) -> None:
    requests = [request for trial in trials for request in trial_requests(trial, TOKENIZER)]
    cost = reading(requests, config)
    tokens, flops = cost.tokens_alone / cost.tokens, cost.flops_alone / cost.flops
    print(f"{model.num_params(config):,} parameters, prompts of up to {config.max_length} bytes")
    print(f"prompts and options: {len(whole):,} for {len(trials)} queries")
    print(f"largest difference of a log-likelihood: {apart:.1e} nats")
    print(f"each alone: {theirs:.2f} s; shared prefix: {ours:.2f} s")
    print(f"tokens {tokens:.1f} times fewer, FLOPs {flops:.1f}, time {theirs / ours:.1f}")
    print(f"time ratio / FLOP ratio: {theirs / ours / flops:.2f}")


if __name__ == "__main__":
    sys.exit(main())

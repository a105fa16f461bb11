"""Measures training speed on this machine beside PyTorch, plain Flax and plain JAX: tokens/s, FLOP/s, shares.

    python -m tools.benchmark_train [--shapes 0.8m,10.8m,124m] [--trainers icl,torch] [--profile]

Each shape is trained on random tokens, in float32 with AdamW, by every trainer in turn, a few steps a round,
so that what else the machine does hits all alike; the median over the rounds counts. All start from the same
weights, and their first losses have to agree. The matmul rate is the median of 30 products of 2048 x 2048
matrices back to back, before and after each shape: interleaved with steps it would mislead.
PyTorch comes with the extra `peers`; without it the rest runs. JAX uses every core; `--threads` is PyTorch's.
`--profile` times the parts of a step instead, ours beside PyTorch's.
"""

import argparse
import importlib.util
import os
import statistics
import sys
import time
from typing import NamedTuple

from icl.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()

import jax

from icl import model
from icl.errors import InputError
from icl.model import ModelConfig
from icl.parallel.speed import measure_matmul_flops
from tools.train_parts import profile
from tools.train_peers import Shape, make_flax, make_icl, make_plain, make_torch


def _gpt2(layers: int, heads: int, width: int, vocabulary: int, length: int) -> ModelConfig:
    return ModelConfig(
        num_layers=layers, num_heads=heads, embed_dim=width, vocab_size=vocabulary, max_length=length
    )


SHAPES = {
    "0.8m": Shape(_gpt2(4, 4, 128, 65, 256), 16, 256),
    "10.8m": Shape(_gpt2(6, 6, 384, 65, 256), 16, 256),
    "124m": Shape(_gpt2(12, 12, 768, 50304, 512), 2, 512),
}
TRAINERS = {"icl": make_icl, "torch": make_torch, "flax": make_flax, "jax": make_plain}
ROUND_SECONDS = 1.0
TOLERANCE = 1e-4


class Speed(NamedTuple):
    """Of one trainer: seconds and processor seconds of a step, the median over the rounds, and first loss."""

    seconds: float
    processor_seconds: float
    loss: float


def measure(shape: Shape, names: list[str], rounds: int) -> dict[str, Speed]:
    """Runs the trainers in turn, about a second each a round."""
    steps, losses, counts = {}, {}, {}
    for name in names:
        steps[name] = TRAINERS[name](shape)
        losses[name] = steps[name]()
        start = time.perf_counter()
        steps[name]()
        counts[name] = max(1, round(ROUND_SECONDS / (time.perf_counter() - start)))
    clock: dict[str, list[float]] = {name: [] for name in names}
    processors: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 else names[::-1]:
            steps[name]()  # Finds its data out of the caches.
            start, busy = time.perf_counter(), time.process_time()
            for _ in range(counts[name]):
                steps[name]()
            clock[name].append((time.perf_counter() - start) / counts[name])
            processors[name].append((time.process_time() - busy) / counts[name])
    median = statistics.median
    return {name: Speed(median(clock[name]), median(processors[name]), losses[name]) for name in names}


def report(name: str, names: list[str], rounds: int) -> bool:
    """Prints the lines of one shape; whether all trainers began with the same loss."""
    shape = SHAPES[name]
    before = measure_matmul_flops(2048, 30)
    speeds = measure(shape, names, rounds)
    after = measure_matmul_flops(2048, 30)
    tokens = shape.rows * shape.length
    flops = tokens * model.flops_per_token(shape.config, shape.length)
    rate = (before + after) / 2
    print(
        f"{name}: {model.num_params(shape.config):,} parameters, {shape.rows} rows of {shape.length}; "
        f"2048^3 matmul {before / 1e9:.0f} GFLOP/s before, {after / 1e9:.0f} after; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    for who, speed in speeds.items():
        ratios = "  ".join(
            f"{speeds[other].seconds / speed.seconds:4.2f} x {other}" for other in names if other != who
        )
        print(
            f"  {who:5} {tokens / speed.seconds:9,.0f} tokens/s  {speed.seconds * 1e3:8.1f} ms/step "
            f"({speed.processor_seconds * 1e3:8.1f} of processors)  {flops / speed.seconds / rate:5.1%} of "
            f"the matmul rate  {ratios}",
            flush=True,
        )
    losses = [speed.loss for speed in speeds.values()]
    same = max(losses) - min(losses) < TOLERANCE
    print(
        "  first loss " + ", ".join(f"{who} {speed.loss:.6f}" for who, speed in speeds.items()),
        "" if same else ": NOT THE SAME MODEL",
    )
    return same


def report_profile(name: str, rounds: int) -> None:
    """Prints the parts of a step."""
    shape = SHAPES[name]
    print(f"{name}: milliseconds of a step by part, forward and backward; load {os.getloadavg()[0]:.1f}")
    for part, (ours, torch) in profile(shape, rounds).items():
        beside = "" if torch is None else f"  torch {torch:8.1f}"
        print(f"  {part:12} icl {ours:8.1f}{beside}", flush=True)


def _trainers(asked: str | None, threads: int) -> list[str]:
    """The trainers to run; PyTorch, left out where it is not installed, gets its threads."""
    names = asked.split(",") if asked else list(TRAINERS)
    if "torch" in names and importlib.util.find_spec("torch") is None:
        print("torch is not installed (extra `peers`): the rest runs without it")
        names = [name for name in names if name != "torch"]
    if "torch" in names:
        import torch

        torch.set_num_threads(threads)
        print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads", end="; ")
    print(f"JAX {jax.__version__} on {os.cpu_count()} cores")
    return names


def main() -> int:
    """Measures the shapes asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shapes", default=",".join(SHAPES), help="comma-separated, of " + ", ".join(SHAPES))
    parser.add_argument("--trainers", help="comma-separated, of " + ", ".join(TRAINERS))
    parser.add_argument("--rounds", type=int, default=10, help="rounds of about a second for each trainer")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--profile", action="store_true", help="time the parts of a step, not steps")
    args = parser.parse_args()
    try:
        for flag, known in (("shapes", SHAPES), ("trainers", TRAINERS)):
            unknown = set((getattr(args, flag) or "").split(",")) - {"", *known}
            if unknown:
                raise InputError(f"--{flag} {getattr(args, flag)}: expected some of {', '.join(known)}")
        for flag in ("rounds", "threads"):
            if getattr(args, flag) < 1:
                raise InputError(f"--{flag} {getattr(args, flag)}: expected a positive number")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    names = _trainers(args.trainers, args.threads)
    if args.profile:
        for name in args.shapes.split(","):
            report_profile(name, args.rounds)
        return 0
    same = [report(name, names, args.rounds) for name in args.shapes.split(",")]
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Measures training speed on this machine: tokens/s, model FLOP/s, and the share of its large-matmul FLOP/s.

    python tools/benchmark_train.py [--shapes 0.8m,10.8m,124m] [--steps 20] [--no_plain]

Each shape is trained on random tokens by `icl`'s own step and by a plain JAX step written here (a Python
list of layers, no options), in turn, with AdamW in float32. The matmul rate is the median of 30 products of
2048 x 2048 matrices back to back, before and after each shape: interleaved with steps it would mislead.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from icl.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()

import jax
import jax.numpy as jnp
import numpy as np
import optax

from icl import model
from icl.data.batch import Batch
from icl.errors import InputError
from icl.model import ModelConfig
from icl.parallel.speed import measure_matmul_flops
from icl.training.optimizer import OptimizerConfig, make_optimizer
from icl.training.step import TrainState, make_train_step


class Shape(NamedTuple):
    """A model, and the rows of a step."""

    config: ModelConfig
    rows: int
    length: int


def _gpt2(layers: int, heads: int, width: int, vocabulary: int, length: int) -> ModelConfig:
    return ModelConfig(
        num_layers=layers, num_heads=heads, embed_dim=width, vocab_size=vocabulary, max_length=length
    )


SHAPES = {
    "0.8m": Shape(_gpt2(4, 4, 128, 65, 256), 16, 256),
    "10.8m": Shape(_gpt2(6, 6, 384, 65, 256), 16, 256),
    "124m": Shape(_gpt2(12, 12, 768, 50304, 512), 2, 512),
}
RATE = 3e-4


class Speed(NamedTuple):
    """Median seconds of a step, and its last loss."""

    seconds: float
    loss: float


def make_batch(shape: Shape) -> Batch:
    """Random tokens, every position weighed, one segment a row."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, shape.config.vocab_size, (shape.rows, shape.length + 1)).astype(np.int32)
    ones = np.ones((shape.rows, shape.length), np.int32)
    positions = np.broadcast_to(np.arange(shape.length, dtype=np.int32), ones.shape)
    arrays = (tokens[:, :-1], tokens[:, 1:], ones, positions, ones.astype(np.float32), -ones, ones - 1)
    return Batch(*map(jnp.asarray, arrays))


def time_icl(shape: Shape, steps: int) -> Speed:
    """Our own train step."""
    config, batch = shape.config, make_batch(shape)
    optimizer = make_optimizer(OptimizerConfig(), model.logical_axes(config))
    params = model.init_params(config, jax.random.key(0))
    state = TrainState(
        jnp.zeros((), jnp.int32),
        params,
        optimizer.init(params),
        jnp.zeros((), jnp.int32),
        jnp.zeros(1, jnp.int32),
    )
    step = make_train_step(config, optimizer, lambda _: jnp.float32(RATE), num_components=1)
    return _time(jax.jit(step, donate_argnums=0), state, batch, lambda metrics: metrics.loss, steps)


def time_plain(shape: Shape, steps: int) -> Speed:
    """The same GPT-2 as a person would write it in a page of JAX."""
    config, batch = shape.config, make_batch(shape)
    params = model.init_params(config, jax.random.key(0))
    stacked = params.pop("layers")
    params["list"] = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(config.num_layers)]
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(RATE, b1=0.9, b2=0.95, weight_decay=0.1)
    )

    def step(state: Any, batch: Batch) -> tuple[Any, jax.Array]:
        params, moments = state
        loss, grads = jax.value_and_grad(_plain_loss)(params, config, batch)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), loss

    state = (params, optimizer.init(params))
    return _time(jax.jit(step, donate_argnums=0), state, batch, lambda loss: loss, steps)


def _plain_loss(params: Any, config: ModelConfig, batch: Batch) -> jax.Array:
    def norm(p: Any, x: jax.Array) -> jax.Array:
        x = x - x.mean(-1, keepdims=True)
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

    def linear(p: Any, x: jax.Array) -> jax.Array:
        return x @ p["kernel"] + p["bias"]

    tokens, targets = jnp.asarray(batch.inputs_BT), jnp.asarray(batch.targets_BT)
    rows, length = tokens.shape
    heads, size = config.num_heads, config.size_per_head
    causal = jnp.tril(jnp.ones((length, length), bool))
    x = params["embedding"]["tokens"][tokens] + params["embedding"]["positions"][:length]
    for layer in params["list"]:
        h, p = norm(layer["attention_norm"], x), layer["attention"]
        q, k, v = (
            linear(p[name], h).reshape(rows, length, heads, size).transpose(0, 2, 1, 3)
            for name in ("query", "key", "value")
        )
        weights = jax.nn.softmax(jnp.where(causal, q @ k.swapaxes(2, 3) * size**-0.5, -1e30))
        x = x + linear(p["out"], (weights @ v).transpose(0, 2, 1, 3).reshape(rows, length, -1))
        p = layer["mlp"]
        x = x + linear(p["down"], jax.nn.gelu(linear(p["up"], norm(layer["mlp_norm"], x))))
    logits = norm(params["final_norm"], x) @ params["embedding"]["tokens"].T
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def _time(
    step: Callable[[Any, Batch], tuple[Any, Any]],
    state: Any,
    batch: Batch,
    loss_of: Callable[[Any], jax.Array],
    steps: int,
) -> Speed:
    seconds = []
    out = None
    for _ in range(steps + 2):
        start = time.perf_counter()
        state, out = step(state, batch)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - start)
    return Speed(statistics.median(seconds[2:]), float(loss_of(out)))


def report(name: str, shape: Shape, steps: int, plain: bool) -> None:
    """Prints the lines of one shape."""
    before = measure_matmul_flops(2048, 30)
    rounds = {"icl": time_icl(shape, steps)}
    if plain:
        rounds["plain JAX"] = time_plain(shape, steps)
    after = measure_matmul_flops(2048, 30)
    tokens = shape.rows * shape.length
    flops = tokens * model.flops_per_token(shape.config, shape.length)
    rate = (before + after) / 2
    print(
        f"{name}: {model.num_params(shape.config):,} parameters, {shape.rows} rows of {shape.length}; "
        f"2048^3 matmul {before / 1e9:.0f} GFLOP/s before, {after / 1e9:.0f} after"
    )
    for who, speed in rounds.items():
        print(
            f"  {who:10} {tokens / speed.seconds:9,.0f} tokens/s  {speed.seconds * 1e3:8.1f} ms/step  "
            f"{flops / speed.seconds / 1e9:6.1f} GFLOP/s  {flops / speed.seconds / rate:5.1%} of the matmul "
            f"rate  (loss {speed.loss:.4f})"
        )
    if plain:
        print(f"  icl / plain {rounds['plain JAX'].seconds / rounds['icl'].seconds:.2f}", flush=True)


def main() -> int:
    """Measures the shapes asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shapes", default=",".join(SHAPES), help="comma-separated, of " + ", ".join(SHAPES))
    parser.add_argument("--steps", type=int, default=20, help="steps timed for each; the median counts")
    parser.add_argument("--no_plain", action="store_true", help="leave out the plain JAX step")
    args = parser.parse_args()
    try:
        unknown = [name for name in args.shapes.split(",") if name not in SHAPES]
        if unknown or args.steps < 1:
            raise InputError(
                f"--shapes {args.shapes} --steps {args.steps}: expected {list(SHAPES)}, steps >= 1"
            )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name in args.shapes.split(","):
        report(name, SHAPES[name], args.steps, not args.no_plain)
    return 0


if __name__ == "__main__":
    sys.exit(main())

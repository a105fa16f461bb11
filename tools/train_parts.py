"""Where a training step's time goes: its parts timed alone, forward and backward, ours beside PyTorch's.

Each part runs at the size it has in a step of the shape, once for one layer, and counts as often as the model
has layers. Alone, a part finds its inputs in memory and its results are written there, so the sum can exceed
the step, where neighbours are fused.

Shapes: B rows, T positions, D embed, H heads, K head size.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icl import model
from icl.model.attention import attend
from icl.model.block import attention_of
from icl.model.layers import MLP, Norm, Weights, kernel_initializer, project
from icl.model.spans import Span
from icl.training.loss import weighted_loss
from icl.training.optimizer import OptimizerConfig, make_optimizer
from tools.train_peers import B1, B2, CLIP, DECAY, EPS, RATE, Shape, initial_params, make_batch

Run = Callable[[], Any]
WARM_UP_SECONDS, TIMED_SECONDS = 0.05, 0.1


class Part(NamedTuple):
    """One part: how often a step does it, and a run of ours and of PyTorch's (None: not installed)."""

    times: int
    ours: Run
    torch: Run | None


def profile(shape: Shape, rounds: int) -> dict[str, tuple[float, float | None]]:
    """Milliseconds in a step by part, ours and PyTorch's; the two run in turn, the median counts.

    Each runs for a while before it is timed: the threads of the other still spin then.
    """
    found = {}
    for name, part in _parts(shape).items():
        runs = [run for run in (part.ours, part.torch) if run is not None]
        seconds: list[list[float]] = [[] for _ in runs]
        for _ in range(rounds + 1):
            for run, spent in zip(runs, seconds, strict=True):
                _repeat(run, WARM_UP_SECONDS)
                spent.append(_repeat(run, TIMED_SECONDS) * 1e3 * part.times)
        medians = [statistics.median(spent[1:]) for spent in seconds]
        found[name] = (medians[0], medians[1] if len(medians) > 1 else None)
    return found


def _repeat(run: Run, at_least: float) -> float:
    """Runs for so many seconds or once; the seconds of one run."""
    start, count = time.perf_counter(), 0
    while not count or time.perf_counter() - start < at_least:
        run()
        count += 1
    return (time.perf_counter() - start) / count


def _parts(shape: Shape) -> dict[str, Part]:
    ours = _our_parts(shape)
    theirs = _torch_parts(shape) if importlib.util.find_spec("torch") is not None else {}
    layers = shape.config.num_layers
    counts = {"attention": layers, "MLP": layers, "projections": layers, "norms": 2 * layers + 1}
    return {name: Part(counts.get(name, 1), run, theirs.get(name)) for name, run in ours.items()}


def _normal(*sizes: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=sizes), jnp.float32)


def _differentiated(function: Callable[..., Any], *inputs: Any) -> Run:
    """Runs a function and the gradients of all its inputs, for some gradient of its output."""

    def both(inputs: Any, gradient: Any) -> Any:
        output, pullback = jax.vjp(function, *inputs)
        return output, pullback(gradient)

    gradient = jax.tree.map(lambda leaf: _normal(*leaf.shape), jax.eval_shape(function, *inputs))
    compiled = jax.jit(both)
    return lambda: jax.block_until_ready(compiled(inputs, gradient))


def _our_parts(shape: Shape) -> dict[str, Run]:
    config, (rows, length) = shape.config, shape[1:]
    heads, size, dtype = config.num_heads, config.size_per_head, jnp.float32
    params, batch = initial_params(shape), make_batch(shape)
    layer = jax.tree.map(lambda leaf: leaf[0], params["layers"])
    x_BTD = _normal(rows, length, config.embed_dim)
    span = Span(jnp.asarray(batch.segments_BT), jnp.asarray(batch.positions_BT))

    def attention(qkv_BTE: jax.Array) -> jax.Array:
        q, k, v = (part.reshape(rows, length, heads, size) for part in jnp.split(qkv_BTE, 3, axis=-1))
        o_BTHK = attend(
            q,
            k.transpose(0, 2, 1, 3),
            v.transpose(0, 2, 1, 3),
            queries=span,
            keys=span,
            implementation=attention_of(config, None),
            aligned=True,
        )
        return o_BTHK.reshape(rows, length, -1)

    def mlp(weights: Any, x_BTD: jax.Array) -> jax.Array:
        return MLP(config, kernel_initializer(config)).apply({"params": weights}, x_BTD)  # type: ignore[return-value]

    def projections(weights: Any, x_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
        parts = [weights[name] for name in ("query", "key", "value")]
        joined = jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis=-1), *parts)
        return project(x_BTD, Weights(**joined), dtype), project(x_BTD, Weights(**weights["out"]), dtype)

    def norm(weights: Any, x_BTD: jax.Array) -> jax.Array:
        return Norm(config).apply({"params": weights}, x_BTD)  # type: ignore[return-value]

    def loss(params: Any, hidden_BTD: jax.Array) -> jax.Array:
        weights_BT = jnp.full((rows, length), 1 / (rows * length))
        return weighted_loss(config, params, hidden_BTD, jnp.asarray(batch.targets_BT), weights_BT)[0]

    return {
        "attention": _differentiated(attention, _normal(rows, length, 3 * config.embed_dim)),
        "MLP": _differentiated(mlp, layer["mlp"], x_BTD),
        "projections": _differentiated(projections, layer["attention"], x_BTD),
        "norms": _differentiated(norm, layer["mlp_norm"], x_BTD),
        "loss": _differentiated(loss, {"embedding": params["embedding"]}, x_BTD),
        "optimizer": _our_optimizer(shape, params),
    }


def _our_optimizer(shape: Shape, params: Any) -> Run:
    settings = OptimizerConfig(learning_rate=RATE, b1=B1, b2=B2, eps=EPS, weight_decay=DECAY, clip=CLIP)
    optimizer = make_optimizer(settings, model.logical_axes(shape.config))

    def update(state: Any, grads: Any) -> Any:
        params, moments = state
        updates, moments = optimizer.update(grads, moments, params)
        return jax.tree.map(lambda p, u: p + RATE * u, params, updates), moments

    states = [(params, optimizer.init(params))]
    grads = jax.tree.map(jnp.ones_like, params)
    compiled = jax.jit(update, donate_argnums=0)

    def run() -> None:
        states.append(jax.block_until_ready(compiled(states.pop(), grads)))

    return run


def _torch_parts(shape: Shape) -> dict[str, Run]:
    import torch
    import torch.nn.functional as F

    from tools.torch_gpt import TorchGPT, parameter_groups

    config, (rows, length) = shape.config, shape[1:]
    gpt = TorchGPT(config)
    block: Any = gpt.blocks[0]
    targets = torch.from_numpy(np.array(make_batch(shape).targets_BT, np.int64)).view(-1)

    def differentiated(function: Callable[[Any], tuple[Any, ...]], width: int) -> Run:
        x = torch.from_numpy(np.array(_normal(rows, length, width))).requires_grad_()
        gradients = [torch.randn(output.shape) for output in function(x)]

        def run() -> None:
            x.grad = None
            gpt.zero_grad(set_to_none=True)
            torch.autograd.backward(function(x), gradients)

        return run

    def mlp(x_BTD: Any) -> tuple[Any]:
        return (block.down(F.gelu(block.up(x_BTD), approximate="tanh")),)

    def loss(x_BTD: Any) -> tuple[Any]:
        logits = F.linear(x_BTD, gpt.tokens.weight)
        return (F.cross_entropy(logits.view(-1, logits.shape[-1]), targets),)

    optimizer = torch.optim.AdamW(parameter_groups(gpt, DECAY), lr=RATE, betas=(B1, B2), eps=EPS, fused=True)

    def update() -> None:
        for parameter in gpt.parameters():
            if parameter.grad is None:
                parameter.grad = torch.ones_like(parameter)
        torch.nn.utils.clip_grad_norm_(gpt.parameters(), CLIP)
        optimizer.step()

    width = config.embed_dim
    return {
        "attention": differentiated(lambda qkv_BTE: (block.attend(qkv_BTE),), 3 * width),
        "MLP": differentiated(mlp, width),
        "projections": differentiated(lambda x_BTD: (block.qkv(x_BTD), block.out(x_BTD)), width),
        "norms": differentiated(lambda x_BTD: (block.mlp_norm(x_BTD),), width),
        "loss": differentiated(loss, width),
        "optimizer": update,
    }

"""The trainers that `tools.benchmark_train` times: ours, and what a user would write instead.

Each is a GPT-2 (pre-norm, learned positions, gelu by tanh, tied head, biases everywhere) with the same first
weights, trained in float32 with AdamW, matrices and token table decaying, gradients clipped at a norm of 1.
Each maker gives a function that does one optimizer step and returns its loss, before the update, as soon as
the step is over.

Shapes: B rows, T positions, D embed, H heads, K head size.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from icl import model
from icl.data.batch import Batch
from icl.model import ModelConfig
from icl.training.optimizer import OptimizerConfig, make_optimizer
from icl.training.step import TrainState, make_train_step

RATE, B1, B2, EPS, DECAY, CLIP = 3e-4, 0.9, 0.95, 1e-8, 0.1, 1.0
Step = Callable[[], float]


class Shape(NamedTuple):
    """A model, and the rows of a step."""

    config: ModelConfig
    rows: int
    length: int


def make_batch(shape: Shape) -> Batch:
    """Random tokens, every position weighed, one segment a row."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, shape.config.vocab_size, (shape.rows, shape.length + 1)).astype(np.int32)
    ones = np.ones((shape.rows, shape.length), np.int32)
    batch = Batch(
        inputs_BT=tokens[:, :-1],
        targets_BT=tokens[:, 1:],
        segments_BT=ones,
        positions_BT=np.broadcast_to(np.arange(shape.length, dtype=np.int32), ones.shape),
        weights_BT=ones.astype(np.float32),
        examples_BT=-ones,
        tasks_BT=ones - 1,
        excluded_BT=ones - 1,
    )
    return Batch(*map(jnp.asarray, batch))


def initial_params(shape: Shape) -> Any:
    """The weights that all start from, in our layout."""
    return model.init_params(shape.config, jax.random.key(0))


def make_icl(shape: Shape) -> Step:
    """Our own train step."""
    config, batch, params = shape.config, make_batch(shape), initial_params(shape)
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=RATE, b1=B1, b2=B2, eps=EPS, weight_decay=DECAY, clip=CLIP),
        model.logical_axes(config),
    )
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(zero, params, optimizer.init(params), jnp.zeros_like(zero), jnp.zeros(1, jnp.int32))
    step = make_train_step(config, optimizer, lambda _: jnp.float32(RATE), num_components=1)
    return _stepping(jax.jit(step, donate_argnums=0), state, batch, lambda metrics: metrics.loss)


def make_plain(shape: Shape) -> Step:
    """The same GPT-2 as a person would write it in a page of JAX: a list of layers, no options."""
    params = initial_params(shape)
    params["list"] = _unstack(params.pop("layers"))
    return _optax_trainer(functools.partial(_plain_loss, shape.config), params, make_batch(shape))


def make_flax(shape: Shape) -> Step:
    """The same GPT-2 as a person would write it with the layers of Flax Linen."""
    params, config = initial_params(shape), shape.config
    gpt = FlaxGPT(config)

    def loss_of(params: Any, batch: Batch) -> jax.Array:
        logits_BTV = gpt.apply({"params": params}, batch.inputs_BT)
        return optax.softmax_cross_entropy_with_integer_labels(logits_BTV, batch.targets_BT).mean()

    return _optax_trainer(loss_of, _flax_params(config, params), make_batch(shape))


def make_torch(shape: Shape) -> Step:
    """The same GPT-2 in PyTorch, eager, with its fused attention and its fused AdamW."""
    import torch

    from tools.torch_gpt import TorchGPT, parameter_groups

    gpt = TorchGPT(shape.config)
    gpt.load(jax.tree.map(np.asarray, initial_params(shape)))
    optimizer = torch.optim.AdamW(parameter_groups(gpt, DECAY), lr=RATE, betas=(B1, B2), eps=EPS, fused=True)
    batch = make_batch(shape)
    inputs, targets = (torch.from_numpy(np.array(x, np.int64)) for x in (batch.inputs_BT, batch.targets_BT))

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = gpt.loss(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(gpt.parameters(), CLIP)
        optimizer.step()
        return float(loss.detach())

    return step


def _optax_trainer(loss_of: Callable[[Any, Batch], jax.Array], params: Any, batch: Batch) -> Step:
    decays = jax.tree_util.tree_map_with_path(
        lambda path, x: x.ndim > 1 and "position" not in str(path), params
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(CLIP),
        optax.adamw(RATE, b1=B1, b2=B2, eps=EPS, weight_decay=DECAY, mask=decays),
    )

    def step(state: Any, batch: Batch) -> tuple[Any, jax.Array]:
        params, moments = state
        loss, grads = jax.value_and_grad(loss_of)(params, batch)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), loss

    state = (params, optimizer.init(params))
    return _stepping(jax.jit(step, donate_argnums=0), state, batch, lambda loss: loss)


def _stepping(
    step: Callable[[Any, Batch], tuple[Any, Any]],
    state: Any,
    batch: Batch,
    loss_of: Callable[[Any], jax.Array],
) -> Step:
    states = [state]

    def run() -> float:
        state, out = step(states.pop(), batch)
        states.append(jax.block_until_ready(state))
        return float(loss_of(out))

    return run


def _unstack(stacked: Any) -> list[Any]:
    count = len(jax.tree.leaves(stacked)[0])
    return [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(count)]


def _plain_loss(config: ModelConfig, params: Any, batch: Batch) -> jax.Array:
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


class FlaxBlock(nn.Module):
    """Attention and MLP from the layers that Linen comes with."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array, mask: jax.Array) -> jax.Array:
        """[batch, length, embed] -> the same."""
        h = nn.LayerNorm(epsilon=1e-5, name="attention_norm")(x_BTD)
        heads = self.config.num_heads
        x_BTD = x_BTD + nn.MultiHeadDotProductAttention(num_heads=heads, name="attention")(h, mask=mask)
        h = nn.LayerNorm(epsilon=1e-5, name="mlp_norm")(x_BTD)
        h = nn.gelu(nn.Dense(self.config.hidden_dim, name="up")(h))
        return x_BTD + nn.Dense(self.config.embed_dim, name="down")(h)


class FlaxGPT(nn.Module):
    """A Python list of blocks between a table and its transpose."""

    config: ModelConfig

    @nn.compact
    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        """Token ids -> logits [batch, length, vocab]."""
        config = self.config
        table = nn.Embed(config.vocab_size, config.embed_dim, name="tokens")
        x_BTD = table(tokens_BT) + nn.Embed(config.max_length, config.embed_dim, name="positions")(
            jnp.arange(tokens_BT.shape[1])[None]
        )
        mask = nn.make_causal_mask(tokens_BT)
        for i in range(config.num_layers):
            x_BTD = FlaxBlock(config, name=f"block_{i}")(x_BTD, mask)
        return table.attend(nn.LayerNorm(epsilon=1e-5, name="final_norm")(x_BTD))


def _flax_params(config: ModelConfig, params: Any) -> Any:
    """Our parameters in the layout of `FlaxGPT`: heads are axes of their own."""
    heads, size = config.num_heads, config.size_per_head

    def block(p: Any) -> Any:
        def into(weights: Any) -> Any:
            kernel = weights["kernel"].reshape(-1, heads, size)
            return {"kernel": kernel, "bias": weights["bias"].reshape(heads, size)}

        out = p["attention"]["out"]
        return {
            "attention_norm": p["attention_norm"],
            "attention": {
                **{name: into(p["attention"][name]) for name in ("query", "key", "value")},
                "out": {"kernel": out["kernel"].reshape(heads, size, -1), "bias": out["bias"]},
            },
            "mlp_norm": p["mlp_norm"],
            **p["mlp"],
        }

    return {
        "tokens": {"embedding": params["embedding"]["tokens"]},
        "positions": {"embedding": params["embedding"]["positions"]},
        "final_norm": params["final_norm"],
        **{f"block_{i}": block(p) for i, p in enumerate(_unstack(params["layers"]))},
    }

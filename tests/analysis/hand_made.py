"""A model of two layers whose heads were written by hand: one looks back, one does induction, two do nothing.

The residual stream has a part for the token, one for the token before, and one for the position, all one-hot,
so every RMS norm divides by a number that is known. The MLPs are zero.
"""

from typing import Any

import jax
import jax.numpy as jnp

from icl.model import ModelConfig, abstract_params

VOCAB, LENGTH = 32, 112
START = 31
CONFIG = ModelConfig(
    vocab_size=VOCAB,
    max_length=LENGTH,
    num_layers=2,
    embed_dim=2 * VOCAB + LENGTH,
    num_heads=2,
    head_dim=LENGTH,
    mlp_dim=4,
    norm="rms",
    qkv_bias=False,
    attention_out_bias=False,
    mlp_bias=False,
    tied_head=True,
)
PREVIOUS = (0, 0)
"""The head that looks at the token before, and notes it."""
INDUCTION = (1, 1)
"""The head that looks where the noted token is its own, and says what stands there."""
SHARP, LOUD = 80.0, 40.0


def induction_params() -> Any:
    """The parameters."""
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), abstract_params(CONFIG))
    size, width = LENGTH, CONFIG.embed_dim
    token, noted, position = slice(0, VOCAB), slice(VOCAB, 2 * VOCAB), slice(2 * VOCAB, width)
    params["embedding"]["tokens"] = jnp.eye(VOCAB, width)
    params["embedding"]["positions"] = jnp.eye(LENGTH, width, k=2 * VOCAB)
    layers = params["layers"]
    for norm in (layers["attention_norm"], layers["mlp_norm"]):
        norm["scale"] = jnp.ones_like(norm["scale"])
    params["final_norm"]["scale"] = jnp.ones(width)
    query, key, value, out = (
        layers["attention"][name]["kernel"] for name in ("query", "key", "value", "out")
    )
    # Position t asks for position t - 1 (the first for itself), reads its token and notes it.
    of_first, of_second = slice(0, size), slice(size, 2 * size)
    back = jnp.eye(LENGTH, k=-1).at[0, 0].set(1.0)
    query = query.at[0, position, of_first].set(SHARP * back)
    key = key.at[0, position, of_first].set(jnp.eye(LENGTH))
    value = value.at[0, token, of_first].set(jnp.eye(VOCAB, size))
    out = out.at[0, of_first, noted].set(jnp.eye(size, VOCAB) * _rms(2) / width**0.5)
    # A token asks for where it was noted, reads the token there and says it.
    query = query.at[1, token, of_second].set(SHARP * jnp.eye(VOCAB, size))
    key = key.at[1, noted, of_second].set(jnp.eye(VOCAB, size))
    value = value.at[1, token, of_second].set(jnp.eye(VOCAB, size))
    out = out.at[1, of_second, token].set(LOUD * jnp.eye(size, VOCAB))
    for name, kernel in (("query", query), ("key", key), ("value", value), ("out", out)):
        layers["attention"][name]["kernel"] = kernel
    return params


def _rms(ones: int) -> float:
    """The norm of a vector of so many ones: what undoes an RMS norm's factor sqrt(width) / norm."""
    return ones**0.5

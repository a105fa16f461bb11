"""The parts of a block that are not attention: norms, rotary positions, short convolution, MLP.

Shapes: B batch, T positions, D embed, H heads, K head size, F mlp, R half of the rotated dimensions.
Every parameter is declared once, with shape, initializer and logical axes side by side.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from icl.model.config import ModelConfig

Initializer = Callable[..., jax.Array]


def declare(
    module: nn.Module,
    name: str,
    initializer: Initializer,
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
) -> jax.Array:
    """Declares a float32 parameter with its logical axes."""
    return cast(
        jax.Array, module.param(name, nn.with_logical_partitioning(initializer, axes), shape, jnp.float32)
    )


def kernel_initializer(config: ModelConfig, scale: float = 1.0) -> Initializer:
    """Normal with the configured standard deviation, or 1 / sqrt(inputs) where that is 0; times `scale`."""
    if config.init_std:
        return nn.initializers.normal(config.init_std * scale)

    def fan_in(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jax.random.normal(key, shape, dtype) * (scale * shape[0] ** -0.5)

    return fan_in


class Norm(nn.Module):
    """Layer norm or RMS norm over the last axis, computed in float32.

    `use_bias` None follows the configuration. Formulae: Ba et al. 2016; Zhang and Sennrich 2019.
    """

    config: ModelConfig
    axis: str | None = None

    @nn.compact
    def __call__(self, x_D: jax.Array) -> jax.Array:
        """[..., width] -> the same shape and dtype."""
        config, width = self.config, x_D.shape[-1]
        scale = declare(self, "scale", nn.initializers.ones, (width,), (self.axis,))
        x = x_D.astype(jnp.float32)
        if config.norm == "layer":
            x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + config.norm_epsilon)
        x = x * broadcast(scale, x)
        if config.norm == "layer" and config.norm_bias:
            bias = declare(self, "bias", nn.initializers.zeros, (width,), (self.axis,))
            x = x + broadcast(bias, x)
        return x.astype(x_D.dtype)


class Weights(NamedTuple):
    """Of one projection: `kernel` [in, out], `bias` [out], `convolution` [width, out] of what it gives."""

    kernel: jax.Array
    bias: jax.Array | None = None
    convolution: jax.Array | None = None


class Projection(nn.Module):
    """Declares the weights of a matmul over the last axis, and of the short convolution after it."""

    config: ModelConfig
    features: int
    axes: tuple[str | None, str | None]
    use_bias: bool
    initializer: Initializer
    conv_width: int = 0

    @nn.compact
    def __call__(self, inputs: int) -> Weights:
        """Weights for inputs of that width."""
        axis = self.axes[1]
        kernel = declare(self, "kernel", self.initializer, (inputs, self.features), self.axes)
        bias = convolution = None
        if self.use_bias:
            bias = declare(self, "bias", nn.initializers.zeros, (self.features,), (axis,))
        if self.conv_width:
            init = nn.initializers.normal(self.config.conv_init_std)
            convolution = declare(self, "convolution", init, (self.conv_width, self.features), (None, axis))
        return Weights(kernel, bias, convolution)


def project(x: jax.Array, weights: Weights, dtype: Any) -> jax.Array:
    """[..., in] -> [..., out] in the compute dtype, as one flat matmul."""
    y = matmul(x.astype(dtype), weights.kernel.astype(dtype))
    return y if weights.bias is None else y + broadcast(weights.bias.astype(dtype), y)


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., in] times [in, out] of the same dtype -> [..., out].

    A CPU first copies the left operand of the product that is the kernel's gradient, column by column. Here
    that is the narrower of inputs and outputs' gradients; what JAX derives always copies the latter.
    """
    return x @ kernel


def _matmul_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _matmul_backward(saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    rows = tuple(range(x.ndim - 1))
    dx = jax.lax.dot_general(dy, kernel, (((x.ndim - 1,), (1,)), ((), ())))
    if kernel.shape[0] > kernel.shape[1]:
        return dx, jax.lax.dot_general(dy, x, ((rows, rows), ((), ()))).T
    return dx, jax.lax.dot_general(x, dy, ((rows, rows), ((), ())))


matmul.defvjp(_matmul_forward, _matmul_backward)


def convolve(
    x_BTE: jax.Array, kernel_WE: jax.Array, positions_BT: jax.Array, past_BWE: jax.Array | None = None
) -> jax.Array:
    """Causal depthwise convolution over positions, within a segment; shape and dtype stay.

    y_t = sum_j kernel_j * x_{t-j}, j < width, where position t - j stands in the same segment (Primer,
    arXiv 2109.08668, section 3). Positions count from the start of each segment; `past` holds the width - 1
    inputs before the first position (none: zeros).
    """
    width, length = kernel_WE.shape[0], x_BTE.shape[1]
    kernel_WE = kernel_WE.astype(x_BTE.dtype)
    if past_BWE is None:
        past_BWE = jnp.zeros((x_BTE.shape[0], width - 1, x_BTE.shape[-1]), x_BTE.dtype)
    padded = jnp.concatenate([past_BWE, x_BTE], axis=1)
    y_BTE = x_BTE * kernel_WE[0][None, None]
    for j in range(1, width):
        shifted = jax.lax.slice_in_dim(padded, width - 1 - j, width - 1 - j + length, axis=1)
        inside = (positions_BT >= j)[..., None]
        y_BTE = y_BTE + jnp.where(inside, shifted, 0) * kernel_WE[j][None, None]
    return y_BTE


class MLP(nn.Module):
    """Two matmuls around an activation; SwiGLU gates with a third (Shazeer 2020)."""

    config: ModelConfig
    out_initializer: Initializer

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """[batch, length, embed] -> the same."""
        config, dtype = self.config, jnp.dtype(self.config.compute_dtype)
        inner = kernel_initializer(config)

        def up(name: str) -> jax.Array:
            declared = Projection(
                config, config.hidden_dim, ("embed", "mlp"), config.mlp_bias, inner, name=name
            )
            return checkpoint_name(project(x_BTD, declared(config.embed_dim), dtype), "mlp_up")

        h_BTF = up("up")
        if config.activation == "swiglu":
            h_BTF = jax.nn.silu(up("gate")) * h_BTF
        else:
            h_BTF = ACTIVATIONS[config.activation](h_BTF)
        down = Projection(
            config, config.embed_dim, ("mlp", "embed"), config.mlp_bias, self.out_initializer, name="down"
        )
        return project(h_BTF, down(config.hidden_dim), dtype)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_erf": lambda x: jax.nn.gelu(x, approximate=False),
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
}


def broadcast(vector: jax.Array, like: jax.Array) -> jax.Array:
    """[width] -> [1, ..., width], since implicit rank promotion is an error in the tests."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


def rotary_angles(config: ModelConfig, positions_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines [batch, length, 1, rotary_dim / 2] (Su et al. 2021, section 3.2)."""
    exponents_R = jnp.arange(0, config.rotary_dim, 2, dtype=jnp.float32) / config.rotary_dim
    frequencies_R = config.rotary_base**-exponents_R
    if config.rotary_scaling:
        frequencies_R = _stretched(frequencies_R, *config.rotary_scaling)
    angles = positions_BT.astype(jnp.float32)[:, :, None, None] * frequencies_R[None, None, None]
    # Kept apart from what reads them, or every layer would compute them again, forward and backward.
    cos, sin = jax.lax.optimization_barrier((jnp.cos(angles), jnp.sin(angles)))
    return cos, sin


def _stretched(frequencies_R: jax.Array, factor: float, low: float, high: float, context: float) -> jax.Array:
    """Slower rotations for longer contexts, as of Llama 3.1.

    Those that turn less than `low` times in a context become `factor` times slower, those that turn more than
    `high` times stay, and between the two the one goes over into the other.
    """
    turns_R = context * frequencies_R / (2 * jnp.pi)
    kept_R = jnp.clip((turns_R - low) / (high - low), 0, 1)
    return kept_R * frequencies_R + (1 - kept_R) * frequencies_R / factor


def rotate(x_BTHK: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates the first rotary_dim dimensions of each head, in halves as GPT-NeoX and Llama do."""
    cos, sin = angles
    half = cos.shape[-1]
    x = x_BTHK.astype(jnp.float32)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x_BTHK[..., 2 * half :]
    rotated = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTHK.dtype)
    return jnp.concatenate([rotated, rest], axis=-1)

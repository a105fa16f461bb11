"""Settings of the transformer, checked when they are made.

The defaults are GPT-2's and GPT-3's shape; the other values let public GPT-NeoX and Llama weights load.
"""

import dataclasses
from typing import Any, Literal, NoReturn

from icl.errors import InputError, check_types

_SMALL: dict[str, Any] = {
    "max_length": 256,
    "positions": "rotary",
    "rotary_fraction": 0.5,
    "norm": "rms",
    "norm_bias": False,
    "activation": "relu2",
    "qkv_bias": False,
    "attention_out_bias": False,
    "mlp_bias": False,
    "conv_width": 6,
    "tied_head": False,
    "init_std": 0.0,
    "embedding_init_std": 1.0,
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and variant of a decoder-only transformer.

    Sizes count elements. `vocab_size` 0 takes the tokenizer's. `head_dim` 0 is embed_dim / num_heads;
    `num_kv_heads` 0 is num_heads; `mlp_dim` 0 is 4 x embed_dim. `layer_pattern` is repeated over the
    layers; a `banded` layer sees the last `band_width` positions only (GPT-3, section 2.1). `rotary_scaling`
    slows rotations down for contexts longer than those first trained on, as Llama 3.1 does: (factor, low and
    high frequency factor, first context). `conv_width` is the width of the causal depthwise convolution on Q,
    K and V (Primer, arXiv 2109.08668); 0 leaves it out. `init_std` is that of the kernels, 0 for
    1 / sqrt(inputs). `attention` auto is `splash` on a TPU, `cudnn` on a GPU in bfloat16, `blocked` on a CPU,
    and `reference` where none of them can be.
    Parameters are float32; `compute_dtype` is that of the matmuls.
    """

    vocab_size: int = 0
    max_length: int = 1024
    num_layers: int = 12
    embed_dim: int = 768
    num_heads: int = 12
    head_dim: int = 0
    num_kv_heads: int = 0
    mlp_dim: int = 0
    norm: Literal["layer", "rms"] = "layer"
    norm_epsilon: float = 1e-5
    norm_bias: bool = True
    positions: Literal["learned", "rotary"] = "learned"
    rotary_base: float = 10_000.0
    rotary_fraction: float = 1.0
    rotary_scaling: tuple[float, ...] = ()
    activation: Literal["gelu_tanh", "gelu_erf", "relu2", "swiglu"] = "gelu_tanh"
    qkv_bias: bool = True
    attention_out_bias: bool = True
    mlp_bias: bool = True
    head_bias: bool = False
    qk_norm: bool = False
    residual: Literal["sequential", "parallel"] = "sequential"
    tied_head: bool = True
    conv_width: int = 0
    conv_init_std: float = 0.5
    layer_pattern: tuple[str, ...] = ("dense",)
    band_width: int = 256
    init_std: float = 0.02
    embedding_init_std: float = 0.02
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "reference", "blocked", "splash", "cudnn"] = "auto"
    remat: Literal["none", "names", "full"] = "none"
    scan_unroll: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        self._check_sizes()
        if self.embed_dim % self.num_heads and not self.head_dim:
            self._refuse("num_heads", f"a divisor of embed_dim = {self.embed_dim}, or a head_dim of its own")
        if self.num_heads % self.kv_heads:
            self._refuse("num_kv_heads", f"a divisor of num_heads = {self.num_heads}")
        if self.positions == "rotary" and self.rotary_dim < 2:
            self._refuse("rotary_fraction", f"at least two of the {self.size_per_head} dimensions of a head")
        if self.rotary_scaling:
            self._check_scaling()
        if not self.layer_pattern or set(self.layer_pattern) - {"dense", "banded"}:
            self._refuse("layer_pattern", "a tuple of 'dense' and 'banded'")
        if self.num_layers % len(self.layer_pattern):
            self._refuse("num_layers", f"a multiple of the {len(self.layer_pattern)} layers of layer_pattern")
        if self.attention == "cudnn" and self.compute_dtype != "bfloat16":
            self._refuse("attention", "another than 'cudnn' with compute_dtype 'float32'")
        if self.tied_head and self.head_bias:
            self._refuse("head_bias", "False with a tied head")

    @classmethod
    def small(cls, **settings: Any) -> "ModelConfig":
        """A GPT of ten thousand to ten million parameters, as `gin/models/small.gin` has it.

        The short convolution on queries, keys and values makes in-context learning form within minutes.
        `settings` are fields, which win over those of the recipe.
        """
        return cls(**(_SMALL | settings))

    def _check_sizes(self) -> None:
        positive = ("max_length", "num_layers", "embed_dim", "num_heads", "band_width")
        for name in positive:
            if getattr(self, name) < 1:
                self._refuse(name, "a positive number")
        for name in ("vocab_size", "head_dim", "num_kv_heads", "mlp_dim", "conv_width", "scan_unroll"):
            if getattr(self, name) < 0:
                self._refuse(name, "0 or more")
        for name in ("norm_epsilon", "rotary_base", "embedding_init_std"):
            if not 0 < getattr(self, name) < float("inf"):
                self._refuse(name, "a positive, finite number")
        for name in ("init_std", "conv_init_std"):
            if not 0 <= getattr(self, name) < float("inf"):
                self._refuse(name, "0 or a positive, finite number")
        if not 0 < self.rotary_fraction <= 1:
            self._refuse("rotary_fraction", "more than 0 and at most 1")

    def _check_scaling(self) -> None:
        expected = "(factor >= 1, low < high frequency factor, context), all positive"
        if len(self.rotary_scaling) != 4 or min(self.rotary_scaling) <= 0:
            self._refuse("rotary_scaling", expected)
        factor, low, high, _ = self.rotary_scaling
        if factor < 1 or low >= high or self.positions != "rotary":
            self._refuse("rotary_scaling", f"{expected}, with rotary positions")

    def _refuse(self, field: str, expected: str) -> NoReturn:
        raise InputError(f"ModelConfig.{field} = {getattr(self, field)!r}: expected {expected}")

    @property
    def size_per_head(self) -> int:
        """K: dimensions of one attention head."""
        return self.head_dim or self.embed_dim // self.num_heads

    @property
    def kv_heads(self) -> int:
        """G: heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def hidden_dim(self) -> int:
        """F: width of the MLP."""
        return self.mlp_dim or 4 * self.embed_dim

    @property
    def rotary_dim(self) -> int:
        """Dimensions of a head that are rotated: an even number."""
        return int(self.size_per_head * self.rotary_fraction) // 2 * 2

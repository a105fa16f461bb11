"""A model's shape, read from the `config.json` of a Hugging Face folder.

Everything in a `config.json` that changes what a model computes is read, or refused by name: an activation,
a kind of rotary positions or a window that is not there must never pass in silence.
"""

import re
from collections.abc import Mapping
from typing import Any

from icl.errors import InputError
from icl.interop.huggingface.architectures import ARCHITECTURES
from icl.model import ModelConfig

Described = Mapping[str, Any]

_ACTIVATIONS = {
    "gelu": "gelu_erf",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu2": "relu2",
}
_HARMLESS = re.compile(
    r".*(dropout|pdrop|_id|_ids)$|_.*|use_cache|(torch_)?dtype|transformers_version|architectures|model_type"
    r"|initializer_range|pretraining_tp|auto_map|reorder_and_upcast_attn|attn_implementation|use_bfloat16"
    r"|max_window_layers|layer_types|sliding_window|use_sliding_window"
    r"|task_specific_params|summary_.*|n_ctx|is_decoder|tokenizer_class|gradient_checkpointing|attention_bias"
)
_CHANGES_NUMBERS = re.compile(
    r"scal|multipl|cap|window|rope|rotary|attn|attention|norm|bias|expert|moe|quant|alibi"
)
_ROPE = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
_ROPE_FIELDS = {
    "default": _ROPE,
    "llama3": (
        *_ROPE,
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}
_NOTHING: tuple[Any, ...] = (None, False, 0, "", {}, [])


def read_config(described: Described, where: str) -> ModelConfig:
    """The model that a `config.json` describes.

    Args:
      described: Its content.
      where: What errors call it.

    Raises:
      InputError: the architecture is unknown, a field is missing or of a wrong type, or the model computes
        something that is not there.
    """
    kind = described.get("model_type")
    readers = {
        "gpt2": _read_gpt2,
        "gpt_neox": _read_gpt_neox,
        "llama": _read_llama,
        "qwen2": _read_llama,
        "qwen3": _read_llama,
        "mistral": _read_llama,
    }
    if not isinstance(kind, str) or kind not in readers:
        raise InputError(f"{where}: model_type = {kind!r}: expected one of {', '.join(ARCHITECTURES)}")
    fields = _Fields(described, where)
    settings = readers[kind](fields)
    fields.check_the_rest()
    try:
        return ModelConfig(**settings)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


class _Fields:
    """Reads fields of a `config.json` by type, and remembers which it read."""

    def __init__(self, described: Described, where: str) -> None:
        self.described, self.where = described, where
        self._read: set[str] = set()

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
            self.refuse(name, value, "a positive integer")
        return int(value)

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            self.refuse(name, value, "a positive number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            self.refuse(name, value, "true or false")
        return bool(value)

    def get(self, name: str, default: Any = None) -> Any:
        self._read.add(name)
        return self.described.get(name, default)

    def only(self, name: str, *allowed: Any) -> None:
        """Refuses a field whose value is none of these; one that is absent passes."""
        if (value := self.get(name, allowed[0])) not in allowed:
            self.refuse(name, value, " or ".join(map(repr, allowed)) + ", which is all that is implemented")

    def refuse(self, name: str, value: Any, expected: str) -> None:
        raise InputError(f"{self.where}: {name} = {value!r}: expected {expected}")

    def check_the_rest(self) -> None:
        """Refuses what was not read, is set, and by its name may change what the model computes."""
        for name, value in self.described.items():
            if name in self._read or _HARMLESS.fullmatch(name) or value in _NOTHING:
                continue
            if _CHANGES_NUMBERS.search(name):
                self.refuse(name, value, "none: nothing of this name is implemented")

    def _value(self, name: str, default: Any) -> Any:
        value = self.get(name)
        if value is None and default is None:
            raise InputError(f"{self.where}: {name} is missing")
        return default if value is None else value


def _activation(fields: _Fields, name: str, default: str) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str) or value not in _ACTIVATIONS:
        fields.refuse(name, value, " or ".join(map(repr, _ACTIVATIONS)))
    return _ACTIVATIONS[value]


def _read_gpt2(fields: _Fields) -> dict[str, Any]:
    fields.only("scale_attn_weights", True)
    fields.only("scale_attn_by_inverse_layer_idx", False)
    fields.only("add_cross_attention", False)
    embed_dim = fields.integer("n_embd")
    return {
        "vocab_size": fields.integer("vocab_size"),
        "max_length": fields.integer("n_positions", fields.described.get("n_ctx")),
        "num_layers": fields.integer("n_layer"),
        "embed_dim": embed_dim,
        "num_heads": fields.integer("n_head"),
        "mlp_dim": fields.integer("n_inner", 4 * embed_dim),
        "activation": _activation(fields, "activation_function", "gelu_new"),
        "norm_epsilon": fields.number("layer_norm_epsilon", 1e-5),
        "tied_head": fields.flag("tie_word_embeddings", True),
    }


def _read_gpt_neox(fields: _Fields) -> dict[str, Any]:
    bias = fields.flag("attention_bias", True)
    base, fraction, scaling = _rotary(fields, "rotary_emb_base", "rotary_pct", 0.25)
    parallel = fields.flag("use_parallel_residual", True)
    embed_dim, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    size = embed_dim // heads
    if int(size * fraction) % 2:
        fields.refuse("rotary_pct", fraction, f"an even number of the {size} dimensions of a head")
    return {
        "vocab_size": fields.integer("vocab_size"),
        "max_length": fields.integer("max_position_embeddings"),
        "num_layers": fields.integer("num_hidden_layers"),
        "embed_dim": embed_dim,
        "num_heads": heads,
        "mlp_dim": fields.integer("intermediate_size"),
        "activation": _activation(fields, "hidden_act", "gelu"),
        "norm_epsilon": fields.number("layer_norm_eps", 1e-5),
        "positions": "rotary",
        "rotary_base": base,
        "rotary_fraction": fraction,
        "rotary_scaling": scaling,
        "residual": "parallel" if parallel else "sequential",
        "qkv_bias": bias,
        "attention_out_bias": bias,
        "tied_head": fields.flag("tie_word_embeddings", False),
    }


def _read_llama(fields: _Fields) -> dict[str, Any]:
    """Llama, Mistral and Qwen: they differ in biases, the norm of queries and keys, and the window."""
    kind = fields.described["model_type"]
    fields.only("hidden_act", "silu", "swish")
    base, fraction, scaling = _rotary(fields, "rope_theta", "partial_rotary_factor", 1.0)
    if fraction != 1:
        fields.refuse("partial_rotary_factor", fraction, f"1 in a {kind} model")
    bias = fields.flag("attention_bias", False) if kind in ("llama", "qwen3") else False
    heads = fields.integer("num_attention_heads")
    embed_dim, layers = fields.integer("hidden_size"), fields.integer("num_hidden_layers")
    longest = fields.integer("max_position_embeddings")
    return {
        "vocab_size": fields.integer("vocab_size"),
        "max_length": longest,
        "num_layers": layers,
        "embed_dim": embed_dim,
        "num_heads": heads,
        "num_kv_heads": fields.integer("num_key_value_heads", heads),
        "head_dim": fields.integer("head_dim", 128 if kind == "qwen3" else max(1, embed_dim // heads)),
        "mlp_dim": fields.integer("intermediate_size"),
        "activation": "swiglu",
        "norm": "rms",
        "norm_epsilon": fields.number("rms_norm_eps", 1e-6),
        "norm_bias": False,
        "positions": "rotary",
        "rotary_base": base,
        "rotary_scaling": scaling,
        "qkv_bias": True if kind == "qwen2" else bias,
        "attention_out_bias": bias,
        "mlp_bias": fields.flag("mlp_bias", False) if kind == "llama" else False,
        "qk_norm": kind == "qwen3",
        "tied_head": fields.flag("tie_word_embeddings", False),
        **_window(fields, kind, longest),
    }


def _window(fields: _Fields, kind: str, longest: int) -> dict[str, Any]:
    """Mistral's window is our band; Qwen's, which only some layers have, is refused."""
    if kind == "qwen2" or kind == "qwen3":
        fields.only("use_sliding_window", False)
        if set(fields.get("layer_types") or ()) - {"full_attention"}:
            fields.refuse("layer_types", fields.get("layer_types"), "'full_attention' in every layer")
        return {}
    if fields.get("sliding_window") is None:
        return {}
    width = fields.integer("sliding_window")
    if kind != "mistral":
        fields.refuse("sliding_window", width, "none in a llama model")
    return {"layer_pattern": ("banded",), "band_width": width} if width < longest else {}


def _rotary(
    fields: _Fields, base: str, fraction: str, usual: float
) -> tuple[float, float, tuple[float, ...]]:
    """Base, rotated fraction and scaling of rotary positions, from `rope_parameters` or the older fields."""
    kinds = [_rope_type(fields, name) for name in ("rope_parameters", "rope_scaling")]
    said = {**(fields.get("rope_scaling") or {}), **(fields.get("rope_parameters") or {})}
    inner = _Fields(said, f"{fields.where}: rope_parameters")
    scaling: tuple[float, ...] = ()
    if "llama3" in kinds:
        scaling = tuple(
            inner.number(name)
            for name in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        )
    return (
        inner.number("rope_theta", fields.number(base, fields.number("rope_theta", 10_000.0))),
        inner.number("partial_rotary_factor", fields.number(fraction, usual)),
        scaling,
    )


def _rope_type(fields: _Fields, name: str) -> str:
    """The type of rotary positions that a field names; refuses what is not implemented."""
    said = fields.get(name)
    if said is None:
        return "default"
    if not isinstance(said, Mapping):
        fields.refuse(name, said, "an object, as in {'rope_type': 'default'}")
    nested = [key for key, value in said.items() if isinstance(value, Mapping)]
    if nested:
        fields.refuse(f"{name}.{nested[0]}", said[nested[0]], "the same positions in all layers")
    kind = str(said.get("rope_type", said.get("type", "default")))
    if kind not in _ROPE_FIELDS:
        fields.refuse(f"{name}.rope_type", kind, " or ".join(map(repr, _ROPE_FIELDS)))
    for key, value in said.items():
        if key not in _ROPE_FIELDS[kind] and value not in (*_NOTHING, 1.0):
            fields.refuse(f"{name}.{key}", value, f"none with rope_type {kind!r}")
    return kind

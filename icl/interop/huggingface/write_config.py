"""A model's shape, written as the `config.json` of a Hugging Face folder, where an architecture has it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from icl.errors import InputError
from icl.interop.huggingface.architectures import ARCHITECTURES
from icl.model import ModelConfig

_ACTIVATIONS = {"gelu_erf": "gelu", "gelu_tanh": "gelu_new", "relu2": "relu2"}


class _Field(NamedTuple):
    """A field of ours that an architecture fixes, and the values it can have."""

    name: str
    allowed: tuple[Any, ...]


def write_config(
    config: ModelConfig, *, architecture: str | None = None, start_id: int, end_ids: tuple[int, ...]
) -> dict[str, Any]:
    """What `config.json` says of a model.

    Args:
      config: The model.
      architecture: Its `model_type`; the first that has such models by default.
      start_id: The token that begins a text.
      end_ids: The tokens that end one.

    Raises:
      InputError: the architecture, or none of all, has such a model.
    """
    names = [architecture] if architecture else list(ARCHITECTURES)
    unfit = {name: next(_unfit(config, name), None) for name in names}
    fitting = [name for name, reason in unfit.items() if reason is None]
    if not fitting:
        reasons: dict[str, list[str]] = {}
        for name, reason in unfit.items():
            reasons.setdefault(str(reason), []).append(name)
        raise InputError(
            "; ".join(f"{reason} in a folder of {' or '.join(names)}" for reason, names in reasons.items())
        )
    name = fitting[0]
    common = {
        "architectures": [ARCHITECTURES[name].class_name],
        "model_type": name,
        "vocab_size": config.vocab_size,
        "bos_token_id": start_id,
        "eos_token_id": end_ids[0] if len(end_ids) == 1 else list(end_ids),
        "tie_word_embeddings": config.tied_head,
    }
    writers = {"gpt2": _write_gpt2, "gpt_neox": _write_gpt_neox}
    return common | writers.get(name, _write_llama)(config)


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
    return {
        "n_positions": config.max_length,
        "n_embd": config.embed_dim,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.hidden_dim,
        "activation_function": _ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_epsilon,
    }


def _write_gpt_neox(config: ModelConfig) -> dict[str, Any]:
    return _write_sizes(config) | {
        "hidden_act": _ACTIVATIONS[config.activation],
        "layer_norm_eps": config.norm_epsilon,
        "rotary_emb_base": config.rotary_base,
        "rotary_pct": config.rotary_fraction,
        "rope_parameters": _rope(config) | {"partial_rotary_factor": config.rotary_fraction},
        "use_parallel_residual": config.residual == "parallel",
        "attention_bias": config.qkv_bias,
    }


def _write_llama(config: ModelConfig) -> dict[str, Any]:
    banded = config.layer_pattern == ("banded",)
    return _write_sizes(config) | {
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.size_per_head,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rotary_base,
        "rope_scaling": {k: v for k, v in _rope(config).items() if k != "rope_theta"}
        if config.rotary_scaling
        else None,
        "rope_parameters": _rope(config),
        "attention_bias": config.attention_out_bias,
        "mlp_bias": config.mlp_bias,
        "sliding_window": config.band_width if banded else None,
    }


def _rope(config: ModelConfig) -> dict[str, Any]:
    if not config.rotary_scaling:
        return {"rope_type": "default", "rope_theta": config.rotary_base}
    factor, low, high, context = config.rotary_scaling
    return {
        "rope_type": "llama3",
        "rope_theta": config.rotary_base,
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": int(context),
    }


def _write_sizes(config: ModelConfig) -> dict[str, Any]:
    return {
        "max_position_embeddings": config.max_length,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.hidden_dim,
    }


_LAYER_NORM = (
    _Field("norm", ("layer",)),
    _Field("norm_bias", (True,)),
    _Field("activation", tuple(_ACTIVATIONS)),
    _Field("mlp_bias", (True,)),
    _Field("qk_norm", (False,)),
)
_RMS_NORM = (
    _Field("norm", ("rms",)),
    _Field("activation", ("swiglu",)),
    _Field("positions", ("rotary",)),
    _Field("rotary_fraction", (1.0,)),
    _Field("residual", ("sequential",)),
)
_ALL = (_Field("conv_width", (0,)), _Field("head_bias", (False,)))
_NO_BIASES = (
    _Field("qkv_bias", (False,)),
    _Field("attention_out_bias", (False,)),
    _Field("mlp_bias", (False,)),
)
_FIELDS: Mapping[str, tuple[_Field, ...]] = {
    "gpt2": (
        *_ALL,
        *_LAYER_NORM,
        _Field("positions", ("learned",)),
        _Field("residual", ("sequential",)),
        _Field("qkv_bias", (True,)),
        _Field("attention_out_bias", (True,)),
    ),
    "gpt_neox": (*_ALL, *_LAYER_NORM, _Field("positions", ("rotary",)), _Field("rotary_scaling", ((),))),
    "llama": (*_ALL, *_RMS_NORM, _Field("qk_norm", (False,))),
    "qwen2": (
        *_ALL,
        *_RMS_NORM,
        _Field("qk_norm", (False,)),
        _Field("qkv_bias", (True,)),
        _Field("attention_out_bias", (False,)),
        _Field("mlp_bias", (False,)),
    ),
    "qwen3": (*_ALL, *_RMS_NORM, _Field("qk_norm", (True,)), _Field("mlp_bias", (False,))),
    "mistral": (*_ALL, *_RMS_NORM, _Field("qk_norm", (False,)), *_NO_BIASES),
}


def _unfit(config: ModelConfig, architecture: str) -> Iterator[str]:
    """Reasons why an architecture has no such model."""
    if architecture not in _FIELDS:
        yield f"architecture {architecture!r}: expected one of {', '.join(_FIELDS)}"
        return
    for field in _FIELDS[architecture]:
        value = getattr(config, field.name)
        if value not in field.allowed:
            expected = " or ".join(map(repr, field.allowed))
            yield f"ModelConfig.{field.name} = {value!r}: expected {expected}"
    if "banded" in config.layer_pattern and (architecture != "mistral" or "dense" in config.layer_pattern):
        expected = "'banded' alone, or 'dense'" if architecture == "mistral" else "'dense' layers only"
        yield f"ModelConfig.layer_pattern = {config.layer_pattern!r}: expected {expected}"
    is_whole = (
        config.kv_heads == config.num_heads and config.size_per_head * config.num_heads == config.embed_dim
    )
    if architecture in ("gpt2", "gpt_neox") and not is_whole:
        yield (
            f"ModelConfig: {config.num_heads} heads of {config.size_per_head}, {config.kv_heads} of keys: "
            f"expected as many of keys and {config.embed_dim} dimensions in all"
        )
    if architecture in ("gpt_neox", "llama", "qwen3") and config.qkv_bias != config.attention_out_bias:
        yield f"ModelConfig.qkv_bias = {config.qkv_bias!r}: expected that of attention_out_bias"

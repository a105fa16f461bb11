"""Writes a GPT-2-shaped model as a Hugging Face folder: `config.json` and `model.safetensors`.

GPT-2 keeps its kernels as [in, out], as we do, and queries, keys and values side by side in one; its layers
are not stacked. The output projection is the token table and is not written twice.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icl.errors import InputError
from icl.model import ModelConfig

Floats = NDArray[np.float32]

_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu_erf": "gelu"}
_SHAPE: dict[str, tuple[Any, ...]] = {
    "positions": ("learned",),
    "norm": ("layer",),
    "activation": tuple(_ACTIVATIONS),
    "residual": ("sequential",),
    "norm_bias": (True,),
    "qkv_bias": (True,),
    "attention_out_bias": (True,),
    "mlp_bias": (True,),
    "tied_head": (True,),
    "qk_norm": (False,),
    "conv_width": (0,),
}
"""Fields of the configuration and the values that GPT-2 has."""


def write_gpt2(folder: Path, config: ModelConfig, params: Mapping[str, Any], start_id: int) -> None:
    """Writes configuration and float32 weights; the tokenizer is the caller's.

    Args:
      folder: Where to; made if missing.
      config: The model, of GPT-2's shape.
      params: Its parameters.
      start_id: The token that begins and ends a text.

    Raises:
      InputError: GPT-2 has no such model.
    """
    described = gpt2_config(config, start_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    write_safetensors(folder / "model.safetensors", dict(gpt2_tensors(config, params)))


def gpt2_config(config: ModelConfig, start_id: int) -> dict[str, Any]:
    """What `config.json` says of a model.

    Raises:
      InputError: GPT-2 has no such model.
    """
    _check_shape(config)
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.max_length,
        "n_embd": config.embed_dim,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.hidden_dim,
        "activation_function": _ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_epsilon,
        "bos_token_id": start_id,
        "eos_token_id": start_id,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }


def _check_shape(config: ModelConfig) -> None:
    for field, allowed in _SHAPE.items():
        value = getattr(config, field)
        if value not in allowed:
            expected = " or ".join(map(repr, allowed))
            raise InputError(f"ModelConfig.{field} = {value!r}: expected {expected} for a GPT-2 folder")
    if "banded" in config.layer_pattern:
        raise InputError("ModelConfig.layer_pattern: expected 'dense' layers only for a GPT-2 folder")
    if config.kv_heads != config.num_heads or config.size_per_head * config.num_heads != config.embed_dim:
        raise InputError(
            f"ModelConfig: {config.num_heads} heads of {config.size_per_head}, {config.kv_heads} of keys; "
            f"expected as many of keys and {config.embed_dim} dimensions in all for a GPT-2 folder"
        )


def gpt2_tensors(config: ModelConfig, params: Mapping[str, Any]) -> Iterator[tuple[str, Floats]]:
    """Hugging Face's names and arrays of all parameters."""
    yield "transformer.wte.weight", _array(params["embedding"]["tokens"])
    yield "transformer.wpe.weight", _array(params["embedding"]["positions"])
    stacked = params["layers"]
    for layer in range(config.num_layers):
        attention, mlp = stacked["attention"], stacked["mlp"]
        parts = [attention[name] for name in ("query", "key", "value")]
        fused = {
            leaf: np.concatenate([_array(part[leaf][layer]) for part in parts], axis=-1)
            for leaf in ("kernel", "bias")
        }
        name = f"transformer.h.{layer}"
        yield f"{name}.attn.c_attn.weight", fused["kernel"]
        yield f"{name}.attn.c_attn.bias", fused["bias"]
        for theirs, ours in (
            ("ln_1", stacked["attention_norm"]),
            ("attn.c_proj", attention["out"]),
            ("ln_2", stacked["mlp_norm"]),
            ("mlp.c_fc", mlp["up"]),
            ("mlp.c_proj", mlp["down"]),
        ):
            weight = "scale" if "scale" in ours else "kernel"
            yield f"{name}.{theirs}.weight", _array(ours[weight][layer])
            yield f"{name}.{theirs}.bias", _array(ours["bias"][layer])
    yield "transformer.ln_f.weight", _array(params["final_norm"]["scale"])
    yield "transformer.ln_f.bias", _array(params["final_norm"]["bias"])


def _array(leaf: Any) -> Floats:
    return np.asarray(leaf, dtype="<f4")


def write_safetensors(path: Path, tensors: Mapping[str, Floats]) -> None:
    """Writes float32 arrays in the safetensors format: length of the header, header as JSON, data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in tensors.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin aligned
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, "<f4").tobytes())

"""A written GPT-2 folder, read by a GPT-2 of its own in numpy, computes what our model computes."""

import json
import struct
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icl import model
from icl.errors import InputError
from icl.interop.gpt2 import write_gpt2
from icl.model import ModelConfig

CONFIG = ModelConfig(vocab_size=24, max_length=16, num_layers=2, embed_dim=24, num_heads=3, mlp_dim=40)


def random_params(config: ModelConfig) -> Any:
    """Weights, biases and norm scales so large that any two of them, swapped, change the logits."""
    rng = np.random.default_rng(7)
    return jax.tree.map(
        lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), model.abstract_params(config)
    )


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    assert header.pop("__metadata__") == {"format": "pt"}
    assert max(entry["data_offsets"][1] for entry in header.values()) == len(body)
    tensors = {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
    }
    return json.loads((folder / "config.json").read_text()), tensors


def gpt2_logits(config: dict[str, Any], tensors: dict[str, Any], tokens: Any) -> Any:
    """GPT-2 (Radford et al. 2019) as in Hugging Face's names, for one sequence."""

    def linear(x: Any, name: str) -> Any:
        return x @ tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + config["layer_norm_epsilon"])
        return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def attention(x: Any, name: str) -> Any:
        heads = [part.reshape(len(x), config["n_head"], -1) for part in np.split(x, 3, axis=-1)]
        scores = np.einsum("qhk,shk->hqs", heads[0], heads[1]) / np.sqrt(heads[0].shape[-1])
        scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = weights / weights.sum(-1, keepdims=True)
        return linear(np.einsum("hqs,shk->qhk", weights, heads[2]).reshape(len(x), -1), name)

    assert config["activation_function"] == "gelu_new"
    wte = tensors["transformer.wte.weight"]
    x = wte[tokens] + tensors["transformer.wpe.weight"][: len(tokens)]
    for layer in range(config["n_layer"]):
        h = f"transformer.h.{layer}"
        x = x + attention(linear(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn"), f"{h}.attn.c_proj")
        inner = linear(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc")
        inner = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        x = x + linear(inner, f"{h}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ wte.T


def our_logits(params: Any, tokens: Any) -> Any:
    tokens_BT = jnp.asarray(tokens)[None]
    positions_BT = jnp.arange(len(tokens))[None]
    return model.logits(CONFIG, params, tokens_BT, jnp.ones_like(tokens_BT), positions_BT)[0]


def test_a_written_folder_computes_what_the_model_computes(tmp_path: Path) -> None:
    params = random_params(CONFIG)
    write_gpt2(tmp_path / "new", CONFIG, params, start_id=3)
    config, tensors = read_folder(tmp_path / "new")
    tokens = np.random.default_rng(0).integers(0, CONFIG.vocab_size, 13)
    np.testing.assert_allclose(
        gpt2_logits(config, tensors, tokens), our_logits(params, tokens), atol=1e-4, rtol=1e-4
    )
    assert config["n_inner"] == 40 and config["bos_token_id"] == config["eos_token_id"] == 3
    assert sum(tensor.size for tensor in tensors.values()) == model.num_params(CONFIG)


def test_each_written_array_moves_the_logits(tmp_path: Path) -> None:
    write_gpt2(tmp_path, CONFIG, random_params(CONFIG), start_id=0)
    config, tensors = read_folder(tmp_path)
    tokens = np.random.default_rng(1).integers(0, CONFIG.vocab_size, 13)
    expected = gpt2_logits(config, tensors, tokens)
    for name, tensor in tensors.items():
        changed = tensors | {name: np.roll(tensor, 1, axis=-1)}
        assert np.abs(gpt2_logits(config, changed, tokens) - expected).max() > 1e-3, name


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"positions": "rotary"}, "positions = 'rotary': expected 'learned'"),
        ({"activation": "swiglu"}, "activation = 'swiglu': expected 'gelu_tanh' or 'gelu_erf'"),
        ({"num_kv_heads": 1}, "3 heads of 8, 1 of keys"),
        ({"head_dim": 4}, "3 heads of 4, 3 of keys"),
        ({"layer_pattern": ("dense", "banded")}, "layer_pattern"),
        ({"tied_head": False}, "tied_head = False"),
    ],
)
def test_what_gpt2_does_not_have_is_refused_before_anything_is_written(
    settings: dict[str, Any], named: str, tmp_path: Path
) -> None:
    config = ModelConfig(
        **{"vocab_size": 24, "max_length": 16, "num_layers": 2, "embed_dim": 24, "num_heads": 3} | settings
    )
    with pytest.raises(InputError, match=named.replace("(", "\\(")):
        write_gpt2(tmp_path / "new", config, {}, start_id=0)
    assert not (tmp_path / "new").exists()

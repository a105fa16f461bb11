"""Hugging Face folders for tests: configurations of several shapes, with random weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.interop import reference
from tests.interop.tokenizers_for_tests import gpt2_tokenizer, llama_tokenizer

GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 384,
    "n_positions": 32,
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-2,
    "tie_word_embeddings": True,
}
NEOX = {
    "model_type": "gpt_neox",
    "vocab_size": 384,
    "max_position_embeddings": 32,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 112,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-2,
    "rotary_pct": 0.25,
    "rotary_emb_base": 10000,
    "use_parallel_residual": True,
    "tie_word_embeddings": False,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 384,
    "max_position_embeddings": 32,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 12,
    "intermediate_size": 80,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-2,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "gpt2-erf": GPT2 | {"activation_function": "gelu", "n_inner": 100},
    "neox": NEOX,
    "neox-sequential-tied": NEOX
    | {
        "use_parallel_residual": False,
        "hidden_act": "gelu_new",
        "rotary_pct": 1.0,
        "tie_word_embeddings": True,
    },
    "llama": LLAMA,
    "llama-grouped-tied": LLAMA | {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "llama-biases-head-size": LLAMA
    | {"num_key_value_heads": 1, "head_dim": 20, "attention_bias": True, "mlp_bias": True, "rope_theta": 5e5},
    "llama-3.1": LLAMA
    | {
        "head_dim": 16,
        "rope_theta": 100.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 30,
        },
    },
    "qwen2": LLAMA | {"model_type": "qwen2", "num_key_value_heads": 2},
    "qwen3": LLAMA | {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 16},
    "mistral-window": LLAMA | {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 7},
}


def random_tensors(described: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Weights and biases of standard deviation 0.3, scales of norms around one."""
    rng = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> Any:
        is_scale = len(shape) == 1 and name.endswith("weight")
        return rng.normal(float(is_scale), 0.3, shape).astype(np.float32)

    return {name: draw(name, shape) for name, shape in reference.shapes(described).items()}


def make_folder(folder: Path, described: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Writes a folder as the hub has it; returns its arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = random_tensors(described, seed)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(described))
    is_llama = described["model_type"] in ("llama", "mistral")
    (folder / "tokenizer.json").write_text(llama_tokenizer() if is_llama else gpt2_tokenizer())
    end = "</s>" if is_llama else "<|endoftext|>"
    special = {"bos_token": "<s>" if is_llama else end, "eos_token": {"content": end}}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return tensors

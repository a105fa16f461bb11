"""Our models and those of `transformers` compute the same from the same folder, in both directions.

Wants the extra `peers`; weights are so large that any two of them, swapped, change the logits.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from icl import model
from icl.interop.huggingface import export_checkpoint, import_folder, open_folder
from tests.interop.tokenizers_for_tests import gpt2_tokenizer, llama_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
SIZES = {"vocab_size": 384, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
LLAMA = SIZES | {"intermediate_size": 80, "max_position_embeddings": 64, "rms_norm_eps": 1e-2}
GPT2 = {
    "vocab_size": 384,
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "layer_norm_epsilon": 1e-2,
}
NEOX = SIZES | {
    "hidden_size": 64,
    "intermediate_size": 112,
    "max_position_embeddings": 64,
    "layer_norm_eps": 1e-2,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2 of Cerebras": ("GPT2", GPT2 | {"activation_function": "gelu", "n_inner": 100}),
    "pythia": ("GPTNeoX", NEOX | {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
    "neox, one after the other": (
        "GPTNeoX",
        NEOX | {"use_parallel_residual": False, "hidden_act": "gelu_new"},
    ),
    "neox, tied, no biases": ("GPTNeoX", NEOX | {"tie_word_embeddings": True, "attention_bias": False}),
    "llama": ("Llama", LLAMA),
    "llama, grouped heads, tied": ("Llama", LLAMA | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "llama, head size, base, biases": (
        "Llama",
        LLAMA
        | {
            "num_key_value_heads": 1,
            "head_dim": 20,
            "attention_bias": True,
            "mlp_bias": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
        },
    ),
    "llama 3.1": (
        "Llama",
        LLAMA
        | {
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 100.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 30,
            },
        },
    ),
    "qwen2": ("Qwen2", LLAMA | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", LLAMA | {"num_key_value_heads": 2, "head_dim": 16}),
    "mistral, window": ("Mistral", LLAMA | {"num_key_value_heads": 2, "head_dim": 12, "sliding_window": 7}),
}


def make_folder(folder: Path, kind: str, settings: dict[str, Any]) -> Any:
    """A folder that transformers writes, and its model."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**settings, bos_token_id=0, eos_token_id=0)
    suffix = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
    theirs = getattr(transformers, f"{kind}{suffix}")(config).float().eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            is_scale = parameter.ndim == 1 and "norm" in name.replace("ln_", "norm") and "weight" in name
            parameter.normal_(float(is_scale), 0.3)
    theirs.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(
        llama_tokenizer() if kind in ("Llama", "Mistral") else gpt2_tokenizer()
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return theirs


def their_logits(theirs: Any, tokens: Any) -> Any:
    with torch.no_grad():
        return theirs(torch.tensor(tokens)).logits.numpy()


def our_logits(config: Any, params: Any, tokens: Any) -> Any:
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    return np.asarray(model.logits(config, params, jnp.asarray(tokens), jnp.ones_like(positions), positions))


TOKENS = np.random.default_rng(0).integers(0, 384, (2, 24))


@pytest.fixture(params=SHAPES, scope="module")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("made")
    yield folder, make_folder(folder, *SHAPES[request.param])


def test_a_folder_of_theirs_computes_the_same_here(made: Any) -> None:
    folder, theirs = made
    opened = open_folder(folder)
    ours = our_logits(opened.config, opened.restore(), TOKENS)
    expected = their_logits(theirs, TOKENS)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE, rtol=0)


def test_a_folder_of_ours_computes_the_same_there(made: Any, tmp_path: Path) -> None:
    folder, theirs = made
    import_folder(open_folder(folder), tmp_path / "run")
    export_checkpoint(tmp_path / "run", tmp_path / "back", architecture=theirs.config.model_type)
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32)
    assert type(back) is type(theirs)
    np.testing.assert_array_equal(their_logits(back, TOKENS), their_logits(theirs, TOKENS))
    # Not AutoTokenizer: for some architectures it makes the class of that name of the same vocabulary.
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "back")
    text = "Q: What is 48 plus 76?\n\nA:"
    opened = open_folder(tmp_path / "back")
    assert tokenizer(text)["input_ids"] == [*opened.tokenizer.prompt_start, *opened.tokenizer.encode(text)]

"""GPT-2, GPT-NeoX and Llama in NumPy, by Hugging Face's names and layouts: a second road to their logits.

Written from the papers and from what the arrays of public folders hold, without a line of ours.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Tensors = dict[str, Any]


def logits(described: dict[str, Any], tensors: Tensors, tokens: Any) -> Floats:
    """Logits [length, vocab] of one sequence, in float64."""
    tensors = {name: np.asarray(array, np.float64) for name, array in tensors.items()}
    kinds: dict[str, Callable[..., Floats]] = {"gpt2": _gpt2, "gpt_neox": _neox}
    return kinds.get(described["model_type"], _llama)(described, tensors, np.asarray(tokens))


def shapes(described: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of a folder."""
    kind = described["model_type"]
    if kind == "gpt2":
        return _gpt2_shapes(described)
    return _neox_shapes(described) if kind == "gpt_neox" else _llama_shapes(described)


def _norm(x: Floats, scale: Floats, bias: Floats | None, epsilon: float) -> Floats:
    if bias is not None:
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * scale
    return x if bias is None else x + bias


def _attention(q: Floats, k: Floats, v: Floats, window: int | None = None) -> Floats:
    """Of [length, heads, size]; keys and values may have fewer heads."""
    length, heads, size = q.shape
    repeats = heads // k.shape[1]
    k, v = np.repeat(k, repeats, axis=1), np.repeat(v, repeats, axis=1)
    scores = np.einsum("qhk,shk->hqs", q, k) / math.sqrt(size)
    seen = np.tri(length, dtype=bool)
    if window is not None:
        seen = seen & ~np.tri(length, k=-window, dtype=bool)
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    return np.einsum("hqs,shk->qhk", weights, v).reshape(length, heads * size)


def _rotated(x: Floats, base: float, dims: int, scaling: dict[str, Any] | None = None) -> Floats:
    """Position p turns the plane of dimensions (i, i + dims / 2) by p / base^(2 i / dims).

    Llama 3.1 tells slow from fast planes by their wave length against the context first trained on.
    """

    def frequency(i: int) -> float:
        plain = base ** (-2 * i / dims)
        if scaling is None:
            return plain
        length, context = 2 * math.pi / plain, scaling["original_max_position_embeddings"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        if length < context / high:
            return plain
        if length > context / low:
            return plain / scaling["factor"]
        smooth = (context / length - low) / (high - low)
        return (1 - smooth) * plain / scaling["factor"] + smooth * plain

    x = x.copy()
    for position in range(len(x)):
        for i in range(dims // 2):
            angle = position * frequency(i)
            a, b = x[position, :, i].copy(), x[position, :, i + dims // 2].copy()
            x[position, :, i] = a * math.cos(angle) - b * math.sin(angle)
            x[position, :, i + dims // 2] = b * math.cos(angle) + a * math.sin(angle)
    return x


_erf = np.vectorize(math.erf)


def _gelu(x: Floats, kind: str) -> Floats:
    if kind == "gelu":
        return 0.5 * x * (1 + _erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _gpt2(c: dict[str, Any], w: Tensors, tokens: Any) -> Floats:
    def conv1d(x: Floats, name: str) -> Floats:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def norm(x: Floats, name: str) -> Floats:
        return _norm(x, w[f"{name}.weight"], w[f"{name}.bias"], c["layer_norm_epsilon"])

    x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][: len(tokens)]
    for layer in range(c["n_layer"]):
        h = f"transformer.h.{layer}"
        fused = conv1d(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn")
        q, k, v = (part.reshape(len(x), c["n_head"], -1) for part in np.split(fused, 3, axis=-1))
        x = x + conv1d(_attention(q, k, v), f"{h}.attn.c_proj")
        inner = _gelu(conv1d(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc"), c["activation_function"])
        x = x + conv1d(inner, f"{h}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ w["transformer.wte.weight"].T


def _gpt2_shapes(c: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    d, f = c["n_embd"], c["n_inner"] or 4 * c["n_embd"]
    found: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (c["vocab_size"], d),
        "transformer.wpe.weight": (c["n_positions"], d),
    }
    for layer in range(c["n_layer"]):
        h = f"transformer.h.{layer}"
        for name, (inputs, outputs) in {
            "attn.c_attn": (d, 3 * d),
            "attn.c_proj": (d, d),
            "mlp.c_fc": (d, f),
            "mlp.c_proj": (f, d),
        }.items():
            found |= {f"{h}.{name}.weight": (inputs, outputs), f"{h}.{name}.bias": (outputs,)}
        for name in ("ln_1", "ln_2"):
            found |= {f"{h}.{name}.weight": (d,), f"{h}.{name}.bias": (d,)}
    return found | {"transformer.ln_f.weight": (d,), "transformer.ln_f.bias": (d,)}


def _linear(w: Tensors, x: Floats, name: str) -> Floats:
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def _neox(c: dict[str, Any], w: Tensors, tokens: Any) -> Floats:
    def norm(x: Floats, name: str) -> Floats:
        return _norm(x, w[f"{name}.weight"], w[f"{name}.bias"], c["layer_norm_eps"])

    heads = c["num_attention_heads"]
    size = c["hidden_size"] // heads
    x = w["gpt_neox.embed_in.weight"][tokens]
    for layer in range(c["num_hidden_layers"]):
        h = f"gpt_neox.layers.{layer}"
        fused = _linear(w, norm(x, f"{h}.input_layernorm"), f"{h}.attention.query_key_value")
        q, k, v = np.moveaxis(fused.reshape(len(x), heads, 3, size), 2, 0)
        dims = int(size * c["rotary_pct"])
        q, k = _rotated(q, c["rotary_emb_base"], dims), _rotated(k, c["rotary_emb_base"], dims)
        attended = _linear(w, _attention(q, k, v), f"{h}.attention.dense")
        before_mlp = x if c["use_parallel_residual"] else x + attended
        inner = _linear(w, norm(before_mlp, f"{h}.post_attention_layernorm"), f"{h}.mlp.dense_h_to_4h")
        x = x + attended + _linear(w, _gelu(inner, c["hidden_act"]), f"{h}.mlp.dense_4h_to_h")
    x = norm(x, "gpt_neox.final_layer_norm")
    head = w["gpt_neox.embed_in.weight"] if c["tie_word_embeddings"] else w["embed_out.weight"]
    return x @ head.T


def _neox_shapes(c: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    d, f = c["hidden_size"], c["intermediate_size"]
    found: dict[str, tuple[int, ...]] = {"gpt_neox.embed_in.weight": (c["vocab_size"], d)}
    for layer in range(c["num_hidden_layers"]):
        h = f"gpt_neox.layers.{layer}"
        for name, (outputs, inputs) in {
            "attention.query_key_value": (3 * d, d),
            "attention.dense": (d, d),
            "mlp.dense_h_to_4h": (f, d),
            "mlp.dense_4h_to_h": (d, f),
        }.items():
            found |= {f"{h}.{name}.weight": (outputs, inputs), f"{h}.{name}.bias": (outputs,)}
        for name in ("input_layernorm", "post_attention_layernorm"):
            found |= {f"{h}.{name}.weight": (d,), f"{h}.{name}.bias": (d,)}
    found |= {"gpt_neox.final_layer_norm.weight": (d,), "gpt_neox.final_layer_norm.bias": (d,)}
    return found if c["tie_word_embeddings"] else found | {"embed_out.weight": (c["vocab_size"], d)}


def _llama(c: dict[str, Any], w: Tensors, tokens: Any) -> Floats:
    def norm(x: Floats, name: str) -> Floats:
        return _norm(x, w[f"{name}.weight"], None, c["rms_norm_eps"])

    size = c["head_dim"]
    x = w["model.embed_tokens.weight"][tokens]
    for layer in range(c["num_hidden_layers"]):
        h = f"model.layers.{layer}"
        y = norm(x, f"{h}.input_layernorm")
        q, k, v = (_linear(w, y, f"{h}.self_attn.{p}_proj").reshape(len(x), -1, size) for p in "qkv")
        if f"{h}.self_attn.q_norm.weight" in w:
            q, k = norm(q, f"{h}.self_attn.q_norm"), norm(k, f"{h}.self_attn.k_norm")
        q, k = (_rotated(x, c["rope_theta"], size, c.get("rope_scaling")) for x in (q, k))
        x = x + _linear(w, _attention(q, k, v, c.get("sliding_window")), f"{h}.self_attn.o_proj")
        y = norm(x, f"{h}.post_attention_layernorm")
        gate = _linear(w, y, f"{h}.mlp.gate_proj")
        x = x + _linear(
            w, gate / (1 + np.exp(-gate)) * _linear(w, y, f"{h}.mlp.up_proj"), f"{h}.mlp.down_proj"
        )
    head = w["model.embed_tokens.weight"] if c["tie_word_embeddings"] else w["lm_head.weight"]
    return norm(x, "model.norm") @ head.T


def _llama_shapes(c: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    d, f, size = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    heads, kv_heads = c["num_attention_heads"] * size, c["num_key_value_heads"] * size
    qkv_bias = c.get("attention_bias", False) or c["model_type"] == "qwen2"
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c["vocab_size"], d)}
    for layer in range(c["num_hidden_layers"]):
        h = f"model.layers.{layer}"
        for name, (outputs, inputs), has_bias in (
            ("self_attn.q_proj", (heads, d), qkv_bias),
            ("self_attn.k_proj", (kv_heads, d), qkv_bias),
            ("self_attn.v_proj", (kv_heads, d), qkv_bias),
            ("self_attn.o_proj", (d, heads), c.get("attention_bias", False)),
            ("mlp.gate_proj", (f, d), c.get("mlp_bias", False)),
            ("mlp.up_proj", (f, d), c.get("mlp_bias", False)),
            ("mlp.down_proj", (d, f), c.get("mlp_bias", False)),
        ):
            found[f"{h}.{name}.weight"] = (outputs, inputs)
            if has_bias:
                found[f"{h}.{name}.bias"] = (outputs,)
        found |= {f"{h}.{name}.weight": (d,) for name in ("input_layernorm", "post_attention_layernorm")}
        if c["model_type"] == "qwen3":
            found |= {f"{h}.self_attn.{name}_norm.weight": (size,) for name in "qk"}
    found["model.norm.weight"] = (d,)
    return found if c["tie_word_embeddings"] else found | {"lm_head.weight": (c["vocab_size"], d)}

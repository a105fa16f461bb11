"""The architectures that can be read and written: which arrays a model has, and where they stand in ours.

A table an architecture, used in both directions. Names of our parameters are paths in their tree; `{}` in a
name of theirs is the layer's number.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from icl.interop.huggingface.layouts import AS_IS, SIDE_BY_SIDE, TRANSPOSED, HeadByHead, Layout
from icl.model import ModelConfig

EMBEDDING = "embedding/tokens"


class Tensor(NamedTuple):
    """One array of theirs (one a layer, where its name has `{}`), and the paths of ours that it holds."""

    name: str
    paths: tuple[str, ...]
    layout: Layout = AS_IS

    @property
    def is_layered(self) -> bool:
        """Whether there is one of it in every layer."""
        return "{}" in self.name


class Architecture(NamedTuple):
    """What a family of models looks like in a folder.

    `tensors` lists its arrays in the order in which they are written. `buffers` ends the names of what a
    folder may hold besides, which is computed and no parameter. `prefix` begins names, though not everywhere.
    """

    class_name: str
    tensors: Callable[[ModelConfig], Iterator[Tensor]]
    buffers: tuple[str, ...]
    prefix: str
    head: str = "lm_head.weight"


def _linear(name: str, path: str, *, bias: bool, layout: Layout = TRANSPOSED) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (f"{path}/kernel",), layout)
    if bias:
        yield Tensor(f"{name}.bias", (f"{path}/bias",))


def _layer_norm(name: str, path: str) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (f"{path}/scale",))
    yield Tensor(f"{name}.bias", (f"{path}/bias",))


def _queries_keys_values(leaf: str) -> tuple[str, ...]:
    return tuple(f"layers/attention/{part}/{leaf}" for part in ("query", "key", "value"))


def _gpt2(config: ModelConfig) -> Iterator[Tensor]:
    yield Tensor("transformer.wte.weight", (EMBEDDING,))
    yield Tensor("transformer.wpe.weight", ("embedding/positions",))
    layer = "transformer.h.{}"
    yield from _layer_norm(f"{layer}.ln_1", "layers/attention_norm")
    for theirs, ours in (("weight", "kernel"), ("bias", "bias")):
        yield Tensor(f"{layer}.attn.c_attn.{theirs}", _queries_keys_values(ours), SIDE_BY_SIDE)
    for name, path in (("attn.c_proj", "attention/out"), ("mlp.c_fc", "mlp/up"), ("mlp.c_proj", "mlp/down")):
        # Conv1D, [in, out] as ours.
        yield from _linear(f"{layer}.{name}", f"layers/{path}", bias=True, layout=AS_IS)
    yield from _layer_norm(f"{layer}.ln_2", "layers/mlp_norm")
    yield from _layer_norm("transformer.ln_f", "final_norm")
    if not config.tied_head:
        yield Tensor("lm_head.weight", ("head/kernel",), TRANSPOSED)


def _gpt_neox(config: ModelConfig) -> Iterator[Tensor]:
    yield Tensor("gpt_neox.embed_in.weight", (EMBEDDING,))
    layer, by_head = "gpt_neox.layers.{}", HeadByHead(config.num_heads)
    yield from _layer_norm(f"{layer}.input_layernorm", "layers/attention_norm")
    yield from _layer_norm(f"{layer}.post_attention_layernorm", "layers/mlp_norm")
    yield Tensor(f"{layer}.attention.query_key_value.weight", _queries_keys_values("kernel"), by_head)
    if config.qkv_bias:
        yield Tensor(f"{layer}.attention.query_key_value.bias", _queries_keys_values("bias"), by_head)
    yield from _linear(f"{layer}.attention.dense", "layers/attention/out", bias=config.attention_out_bias)
    yield from _linear(f"{layer}.mlp.dense_h_to_4h", "layers/mlp/up", bias=True)
    yield from _linear(f"{layer}.mlp.dense_4h_to_h", "layers/mlp/down", bias=True)
    yield from _layer_norm("gpt_neox.final_layer_norm", "final_norm")
    if not config.tied_head:
        yield Tensor("embed_out.weight", ("head/kernel",), TRANSPOSED)


def _llama(config: ModelConfig) -> Iterator[Tensor]:
    yield Tensor("model.embed_tokens.weight", (EMBEDDING,))
    layer = "model.layers.{}"
    yield Tensor(f"{layer}.input_layernorm.weight", ("layers/attention_norm/scale",))
    for name, path, bias in (
        ("q_proj", "query", config.qkv_bias),
        ("k_proj", "key", config.qkv_bias),
        ("v_proj", "value", config.qkv_bias),
        ("o_proj", "out", config.attention_out_bias),
    ):
        yield from _linear(f"{layer}.self_attn.{name}", f"layers/attention/{path}", bias=bias)
    if config.qk_norm:
        yield Tensor(f"{layer}.self_attn.q_norm.weight", ("layers/attention/query_norm/scale",))
        yield Tensor(f"{layer}.self_attn.k_norm.weight", ("layers/attention/key_norm/scale",))
    yield Tensor(f"{layer}.post_attention_layernorm.weight", ("layers/mlp_norm/scale",))
    for name in ("gate", "up", "down"):
        yield from _linear(f"{layer}.mlp.{name}_proj", f"layers/mlp/{name}", bias=config.mlp_bias)
    yield Tensor("model.norm.weight", ("final_norm/scale",))
    if not config.tied_head:
        yield Tensor("lm_head.weight", ("head/kernel",), TRANSPOSED)


ARCHITECTURES: Mapping[str, Architecture] = {
    "gpt2": Architecture("GPT2LMHeadModel", _gpt2, ("attn.bias", "attn.masked_bias"), "transformer."),
    "gpt_neox": Architecture(
        "GPTNeoXForCausalLM",
        _gpt_neox,
        ("attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"),
        "gpt_neox.",
        "embed_out.weight",
    ),
    **{
        name: Architecture(class_name, _llama, ("rotary_emb.inv_freq",), "model.")
        for name, class_name in (
            ("llama", "LlamaForCausalLM"),
            ("qwen2", "Qwen2ForCausalLM"),
            ("qwen3", "Qwen3ForCausalLM"),
            ("mistral", "MistralForCausalLM"),
        )
    },
}
"""By `model_type`."""

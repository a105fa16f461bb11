"""Hugging Face folders compute here what an independent reader computes, and come out as they went in."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from icl import model
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.interop.huggingface import export_checkpoint, import_folder, open_folder, write_folder
from icl.interop.huggingface.folder import named_leaves
from icl.model import ModelConfig
from icl.parallel import MeshConfig, Partitioner, make_mesh
from icl.training.checkpoints import restore_params
from tests.interop import reference
from tests.interop.folders import GPT2, LLAMA, NEOX, SHAPES, make_folder

TOLERANCE = 1e-4
TOKENS = np.random.default_rng(0).integers(0, 384, 24)


def our_logits(config: ModelConfig, params: Any) -> Any:
    tokens_BT = jnp.asarray(TOKENS)[None]
    positions_BT = jnp.arange(len(TOKENS))[None]
    return np.asarray(model.logits(config, params, tokens_BT, jnp.ones_like(tokens_BT), positions_BT)[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_folder_computes_what_its_arrays_mean(shape: str, tmp_path: Path) -> None:
    tensors = make_folder(tmp_path, SHAPES[shape])
    folder = open_folder(tmp_path)
    expected = reference.logits(SHAPES[shape], tensors, TOKENS)
    assert expected.std() > 0.3
    np.testing.assert_allclose(our_logits(folder.config, folder.restore()), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_way_to_read_it_wrong_shows(shape: str, tmp_path: Path) -> None:
    """Or the test above could pass by chance."""
    tensors = make_folder(tmp_path, SHAPES[shape])
    folder = open_folder(tmp_path)
    params = folder.restore()
    expected = reference.logits(SHAPES[shape], tensors, TOKENS)
    tried = dict(mistakes(folder.config, params))
    assert len(tried) >= 5
    for name, (config, wrong) in tried.items():
        difference = np.abs(our_logits(config, wrong) - expected).max()
        assert difference > 10 * TOLERANCE, f"{name}: {difference:.1e}"


def mistakes(config: ModelConfig, params: Any) -> Any:
    """Ways to misread a folder, by name: a configuration and parameters."""

    def changed(**fields: Any) -> tuple[ModelConfig, Any]:
        return dataclasses.replace(config, **fields), params

    def rearranged(change: Callable[[dict[str, Any]], None]) -> tuple[ModelConfig, Any]:
        copy = jax.tree.map(lambda leaf: leaf, params)
        change(copy["layers"]["attention"])
        return config, copy

    def swap(first: str, second: str) -> Callable[[dict[str, Any]], None]:
        return lambda parts: parts.update({first: parts[second], second: parts[first]})

    def interleave(parts: dict[str, Any]) -> None:
        """The layout of rotary positions that pairs neighbours, as in Meta's own Llama files."""
        half = config.rotary_dim // 2
        order = np.arange(config.size_per_head)
        order[: 2 * half] = np.arange(2 * half).reshape(2, half).T.ravel()
        for name in ("query", "key"):
            kernel = parts[name]["kernel"]
            by_head = kernel.reshape(*kernel.shape[:2], -1, config.size_per_head)
            parts[name] = parts[name] | {"kernel": by_head[..., order].reshape(kernel.shape)}

    def mix_heads(parts: dict[str, Any]) -> None:
        """Head by head read as side by side, and the other way round."""
        names = ("query", "key", "value")
        fused = jnp.concatenate([parts[name]["kernel"] for name in names], axis=-1)
        by_head = fused.reshape(*fused.shape[:2], config.num_heads, 3, -1)
        for number, name in enumerate(names):
            kernel = by_head[..., number, :].reshape(parts[name]["kernel"].shape)
            parts[name] = parts[name] | {"kernel": kernel}

    yield "epsilon", changed(norm_epsilon=config.norm_epsilon / 10)
    if config.activation == "swiglu":
        copy = jax.tree.map(lambda leaf: leaf, params)
        mlp = copy["layers"]["mlp"]
        mlp["gate"], mlp["up"] = mlp["up"], mlp["gate"]
        yield "gate and up", (config, copy)
    else:
        other = {"gelu_tanh": "gelu_erf", "gelu_erf": "gelu_tanh"}[config.activation]
        yield "GELU", changed(activation=other)
    if config.positions == "rotary":
        yield "rotary base", changed(rotary_base=config.rotary_base / 2)
        yield "rotary permutation", rearranged(interleave)
        if config.rotary_scaling:
            yield "rotary scaling", changed(rotary_scaling=())
            yield "bounds of rotary scaling", changed(rotary_scaling=(8.0, 1.0, 3.0, 30.0))
        if config.rotary_fraction < 1:
            yield "rotary fraction", changed(rotary_fraction=1.0)
    else:
        positions = {"positions": jnp.roll(params["embedding"]["positions"], 1, axis=0)}
        yield "positions", (config, params | {"embedding": params["embedding"] | positions})
    if config.kv_heads == config.num_heads:
        yield "queries for keys", rearranged(swap("query", "key"))
        yield "order of queries, keys and values", rearranged(mix_heads)
    yield "keys for values", rearranged(swap("key", "value"))
    if config.kv_heads < config.num_heads:
        folded = {
            "query": jnp.roll(params["layers"]["attention"]["query"]["kernel"], config.size_per_head, -1)
        }
        yield (
            "groups of heads",
            rearranged(lambda parts: parts.update(query=parts["query"] | {"kernel": folded["query"]})),
        )
        yield "banded", changed(layer_pattern=("banded",), band_width=5)
    if config.residual == "parallel":
        yield "residual", changed(residual="sequential")


@pytest.mark.parametrize("shape", SHAPES)
def test_exported_imported_and_exported_again_is_the_same_to_the_byte(shape: str, tmp_path: Path) -> None:
    tensors = make_folder(tmp_path / "theirs", SHAPES[shape])
    kind = SHAPES[shape]["model_type"]
    import_folder(open_folder(tmp_path / "theirs"), tmp_path / "run")
    export_checkpoint(tmp_path / "run", tmp_path / "one", architecture=kind)
    import_folder(open_folder(tmp_path / "one"), tmp_path / "again")
    export_checkpoint(tmp_path / "again", tmp_path / "two", architecture=kind)
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    back = load_file(tmp_path / "one" / "model.safetensors")
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensors[name]) for name in tensors)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


def test_shards_names_without_prefix_buffers_and_half_precision_read_the_same(tmp_path: Path) -> None:
    """The forms that folders of the hub have."""
    tensors = {name: array.astype(np.float16) for name, array in make_folder(tmp_path / "a", GPT2).items()}
    whole = {name: array.astype(np.float32) for name, array in tensors.items()}
    save_file(whole, tmp_path / "a" / "model.safetensors")
    make_folder(tmp_path / "b", GPT2)
    (tmp_path / "b" / "model.safetensors").unlink()
    short = {name.removeprefix("transformer."): array for name, array in tensors.items()}
    short |= {f"h.{layer}.attn.bias": np.ones((1, 1, 32, 32), np.uint8) for layer in range(2)}
    short["lm_head.weight"] = short["wte.weight"]
    listed: dict[str, str] = {}
    for number, part in enumerate(np.array_split(sorted(short), 3)):
        file = f"model-{number}.safetensors"
        save_file({str(name): short[str(name)] for name in part}, tmp_path / "b" / file)
        listed |= {str(name): file for name in part}
    (tmp_path / "b" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    one, other = (open_folder(tmp_path / name).restore() for name in "ab")
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_export_in_shards_and_half_precision_reads_back_rounded(dtype: Any, tmp_path: Path) -> None:
    make_folder(tmp_path / "a", NEOX)
    import_folder(open_folder(tmp_path / "a"), tmp_path / "run")
    export_checkpoint(tmp_path / "run", tmp_path / "b", dtype=dtype, max_shard_bytes=50_000)
    assert len(list((tmp_path / "b").glob("model-*-of-*.safetensors"))) > 3
    params = open_folder(tmp_path / "a").restore()
    rounded = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(jnp.float32), params)
    jax.tree.map(np.testing.assert_array_equal, open_folder(tmp_path / "b").restore(), rounded)


@pytest.mark.parametrize("described", [GPT2, NEOX, LLAMA | {"num_key_value_heads": 2}])
def test_each_shard_of_a_mesh_gets_its_part(described: dict[str, Any], tmp_path: Path) -> None:
    make_folder(tmp_path, described)
    folder = open_folder(tmp_path)
    partitioner = Partitioner(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    shapes, axes = model.abstract_params(folder.config), model.logical_axes(folder.config)
    shardings = partitioner.tree_shardings(axes, shapes)
    placed, whole = folder.restore(shardings), folder.restore()
    jax.tree.map(np.testing.assert_array_equal, placed, whole)
    jax.tree.map(lambda leaf, sharding: leaf.sharding == sharding or pytest.fail(), placed, shardings)
    kernel = placed["layers"]["mlp"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4


def test_an_imported_checkpoint_is_verified_like_any_other(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", LLAMA)
    description = import_folder(open_folder(tmp_path / "a"), tmp_path / "run", step=7)
    params, found = restore_params(tmp_path / "run")
    assert found == description and found.step == 7 and found.params == model.num_params(found.model)
    jax.tree.map(np.testing.assert_array_equal, params, open_folder(tmp_path / "a").restore())
    file = max((tmp_path / "run" / "checkpoints/7/params").rglob("0.*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    for read in (restore_params, lambda run: export_checkpoint(run, tmp_path / "b")):
        with pytest.raises(InputError, match="is damaged"):
            read(tmp_path / "run")
    assert not (tmp_path / "b").exists()
    assert not list(tmp_path.glob(".export-*"))


def test_what_exists_is_not_overwritten(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", GPT2)
    import_folder(open_folder(tmp_path / "a"), tmp_path / "run")
    with pytest.raises(InputError, match="holds a run"):
        import_folder(open_folder(tmp_path / "a"), tmp_path / "run")
    with pytest.raises(InputError, match="not empty"):
        export_checkpoint(tmp_path / "run", tmp_path / "a")


def test_a_model_in_memory_is_written_with_its_byte_tokenizer(tmp_path: Path) -> None:
    config = ModelConfig(vocab_size=264, max_length=32, num_layers=2, embed_dim=16, num_heads=2)
    params = model.init_params(config, jax.random.key(0))
    write_folder(tmp_path / "new", config, params, ByteTokenizer())
    folder = open_folder(tmp_path / "new")
    jax.tree.map(np.testing.assert_array_equal, folder.restore(), params)
    text = "Naïve 空 text\n"
    assert folder.tokenizer.encode(text) == ByteTokenizer().encode(text)
    assert folder.tokenizer.prompt_start == folder.tokenizer.end_ids == (256,)
    assert len(named_leaves(params)) == len(jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"conv_width": 3}, "conv_width = 3: expected 0 in a folder of gpt2"),
        ({"activation": "swiglu"}, "activation = 'swiglu': expected 'gelu_erf' or"),
        ({"num_kv_heads": 1}, "3 heads of 8, 1 of keys"),
        ({"layer_pattern": ("dense", "banded")}, "layer_pattern"),
        ({"positions": "rotary", "qkv_bias": False}, "qkv_bias = False: expected that of attention_out_bias"),
    ],
)
def test_a_model_that_no_architecture_has_is_refused_before_anything_is_written(
    settings: dict[str, Any], named: str, tmp_path: Path
) -> None:
    config = ModelConfig(
        **{"vocab_size": 264, "max_length": 16, "num_layers": 2, "embed_dim": 24, "num_heads": 3} | settings
    )
    with pytest.raises(InputError, match=named.replace("(", "\\(")):
        write_folder(tmp_path / "new", config, {}, ByteTokenizer())
    assert not (tmp_path / "new").exists()

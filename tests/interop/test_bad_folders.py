"""Whatever is wrong with a Hugging Face folder: one line that names it, exit code 2, and nothing written."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from icl.interop.huggingface.__main__ import main
from tests.interop.folders import GPT2, LLAMA, NEOX, make_folder

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Damage = Callable[[Path], object]


def config(**fields: Any) -> Damage:
    """Sets fields of config.json; None takes a field away."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text()) | fields
        kept = {name: value for name, value in content.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return damage


def text(name: str, content: str | bytes) -> Damage:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def tensors(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Changes the arrays of the single file of weights."""

    def damage(folder: Path) -> None:
        arrays = load_file(folder / WEIGHTS)
        change(arrays)
        save_file(arrays, folder / WEIGHTS)

    return damage


def sharded(damage: Damage) -> Damage:
    """Splits the weights into two shards with an index first."""

    def both(folder: Path) -> None:
        arrays = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        names = sorted(arrays)
        parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
        for file, part in parts.items():
            save_file({name: arrays[name] for name in part}, folder / file)
        listed = {name: file for file, part in parts.items() for name in part}
        (folder / INDEX).write_text(json.dumps({"weight_map": listed}))
        damage(folder)

    return both


def index(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / INDEX).read_text())
        change(content)
        (folder / INDEX).write_text(json.dumps(content))

    return sharded(damage)


def weights(change: Callable[[bytes], bytes]) -> Damage:
    return lambda folder: (folder / WEIGHTS).write_bytes(change((folder / WEIGHTS).read_bytes()))


def with_header(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Changes the header of the file of weights, and leaves its data."""

    def damage(data: bytes) -> bytes:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        change(header)
        packed = json.dumps(header).encode()
        packed += b" " * (-len(packed) % 8)
        return struct.pack("<Q", len(packed)) + packed + data[8 + length :]

    return weights(damage)


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return damage


def no_end(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    config(eos_token_id=None)(folder)


def spoil(arrays: dict[str, Any], name: str, value: float) -> None:
    arrays[name].flat[3] = value


LN_F = "transformer.ln_f.weight"
ROPE = {"rope_type": "yarn", "factor": 8.0, "rope_theta": 5e5}
EOS = {"type_id": 0, "id": "<|endoftext|>"}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": EOS | {"id": "<|endoftext|>"}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
}
BAD: dict[str, tuple[dict[str, Any], Damage, str]] = {
    "no such folder": (GPT2, shutil.rmtree, "does not exist"),
    "no config": (GPT2, remove("config.json"), "config.json"),
    "config is no JSON": (GPT2, text("config.json", "{'a': 1}"), "not JSON"),
    "config is a list": (GPT2, text("config.json", "[]"), "expected a JSON object, found list"),
    "config is binary": (GPT2, text("config.json", b"\xff\xfe\x00"), "not JSON"),
    "unknown architecture": (GPT2, config(model_type="mamba"), "model_type = 'mamba'"),
    "no architecture": (GPT2, config(model_type=None), "model_type = None"),
    "a size is missing": (GPT2, config(n_embd=None), "n_embd is missing"),
    "a size is text": (GPT2, config(n_layer="two"), "n_layer = 'two': expected a positive integer"),
    "heads do not divide": (GPT2, config(n_head=5), "num_heads = 5"),
    "a size of another model": (GPT2, config(n_inner=64), "has shape [48, 192]: expected [48, 64]"),
    "more layers than weights": (GPT2, config(n_layer=3), "transformer.h.2.ln_1.weight is missing"),
    "fewer layers than weights": (GPT2, config(n_layer=1), "is none of a gpt2 model of 1 layers"),
    "unknown activation": (GPT2, config(activation_function="quick_gelu"), "'quick_gelu'"),
    "attention scaling by layer": (
        GPT2,
        config(scale_attn_by_inverse_layer_idx=True),
        "scale_attn_by_inverse_layer_idx = True",
    ),
    "attention without scaling": (GPT2, config(scale_attn_weights=False), "scale_attn_weights = False"),
    "rope type": (LLAMA, config(rope_scaling=ROPE), "rope_scaling.rope_type = 'yarn'"),
    "newer rope type": (LLAMA, config(rope_parameters=ROPE), "rope_parameters.rope_type = 'yarn'"),
    "rope type without its fields": (
        LLAMA,
        config(rope_parameters=ROPE | {"rope_type": "llama3"}),
        "low_freq_factor is missing",
    ),
    "a field of another rope type": (
        LLAMA,
        config(rope_parameters=ROPE | {"rope_type": "default"}),
        "rope_parameters.factor = 8.0",
    ),
    "rope of a kind of layer": (
        LLAMA,
        config(rope_parameters={"full_attention": ROPE}),
        "rope_parameters.full_attention",
    ),
    "sliding window": (LLAMA, config(sliding_window=8), "sliding_window = 8"),
    "windows in some layers": (
        LLAMA,
        config(model_type="qwen2", layer_types=["full_attention", "sliding_attention"]),
        "layer_types",
    ),
    "a multiplier": (LLAMA, config(attention_multiplier=0.5), "attention_multiplier = 0.5"),
    "quantised": (LLAMA, config(quantization_config={"bits": 4}), "quantization_config"),
    "odd rotary": (NEOX, config(rotary_pct=0.2), "rotary_pct = 0.2"),
    "no weights": (GPT2, remove(WEIGHTS), f"holds no {WEIGHTS}"),
    "a pickle": (GPT2, pickled, "pytorch_model.bin, which could run code and is not read"),
    "a pickle by another name": (GPT2, text(WEIGHTS, b"\x80\x02}q\x00."), "not a whole safetensors file"),
    "a pointer": (GPT2, text(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid x"), "git lfs pull"),
    "an empty file": (GPT2, text(WEIGHTS, b""), "not a whole safetensors file"),
    "truncated header": (GPT2, weights(lambda data: data[:100]), "not a whole safetensors file"),
    "truncated data": (GPT2, weights(lambda data: data[:-4]), "not a whole safetensors file"),
    "bytes too many": (GPT2, weights(lambda data: data + b"\0" * 8), "not a whole safetensors file"),
    "header is no JSON": (
        GPT2,
        weights(lambda d: d[:8] + b"?" * 64 + d[72:]),
        "not a whole safetensors file",
    ),
    "header longer than the file": (
        GPT2,
        weights(lambda data: b"\xff" * 7 + b"\0" + data[8:]),
        "not a whole safetensors file",
    ),
    "overlapping arrays": (
        GPT2,
        with_header(lambda header: header[LN_F].update(data_offsets=[0, 192])),
        "not a whole safetensors file",
    ),
    "an array is missing": (GPT2, tensors(lambda arrays: arrays.pop(LN_F)), f"{LN_F} is missing"),
    "an array too many": (GPT2, tensors(lambda a: a.update(extra=np.ones(2, np.float32))), "array extra"),
    "integers": (GPT2, tensors(lambda a: a.update({LN_F: a[LN_F].astype(np.int8)})), f"{LN_F} is I8"),
    "double precision": (GPT2, tensors(lambda a: a.update({LN_F: a[LN_F].astype(float)})), f"{LN_F} is F64"),
    "wrong shape": (GPT2, tensors(lambda a: a.update({LN_F: a[LN_F][:-1].copy()})), "has shape [47]"),
    "not a number": (GPT2, tensors(lambda a: spoil(a, LN_F, np.nan)), f"{LN_F} holds NaN"),
    "infinity": (GPT2, tensors(lambda a: spoil(a, "transformer.wte.weight", np.inf)), "holds NaN or inf"),
    "no head": (LLAMA, tensors(lambda arrays: arrays.pop("lm_head.weight")), "lm_head.weight is missing"),
    "a missing shard": (GPT2, sharded(remove("model-2.safetensors")), "model-2.safetensors is missing"),
    "a damaged shard": (GPT2, sharded(text("model-1.safetensors", b"x" * 99)), "model-1.safetensors: not a"),
    "an index without map": (GPT2, index(lambda content: content.pop("weight_map")), "'weight_map'"),
    "an index that is no JSON": (GPT2, sharded(text(INDEX, "weight_map")), "not JSON"),
    "an index of other arrays": (
        GPT2,
        index(lambda content: content["weight_map"].update({"x": "model-1.safetensors"})),
        "holds no array x",
    ),
    "an index that leads elsewhere": (
        GPT2,
        index(lambda content: content["weight_map"].update({LN_F: "../model-1.safetensors"})),
        "'../model-1.safetensors'",
    ),
    "shards without index": (GPT2, sharded(remove(INDEX)), f"no {INDEX}; model-1.safetensors is there"),
    "no tokenizer": (GPT2, remove("tokenizer.json"), "tokenizer.json: No such file"),
    "a tokenizer that is no JSON": (GPT2, text("tokenizer.json", "tokens"), "not a tokenizer.json"),
    "a tokenizer of another library": (GPT2, text("tokenizer.json", '{"vocab": {}}'), "not a tokenizer.json"),
    "a binary tokenizer": (GPT2, text("tokenizer.json", b"\xff\xfe"), "not UTF-8"),
    "a tokenizer of a larger model": (
        GPT2 | {"vocab_size": 200},
        lambda folder: None,
        "more than vocab_size = 200",
    ),
    "a tokenizer that ends texts": (
        GPT2,
        tokenizer(lambda t: t.update(post_processor=TEMPLATE)),
        "after a text",
    ),
    "a tokenizer of words": (GPT2, tokenizer(lambda t: t.update(decoder=None)), "no decoder"),
    "no token ends a text": (GPT2, no_end, "no eos_token"),
    "a bad tokenizer_config": (GPT2, text("tokenizer_config.json", "{"), "tokenizer_config.json: not JSON"),
}


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Path]:
    """Good folders, each made once."""
    made: dict[str, Path] = {}

    def of(described: dict[str, Any]) -> Path:
        key = json.dumps(described)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("good") / "model"
            make_folder(made[key], described)
        return made[key]

    return of


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_gets_one_line_and_exit_code_2(
    case: str,
    good: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    described, damage, named = BAD[case]
    folder = tmp_path / "model"
    shutil.copytree(good(described), folder)
    damage(folder)
    assert main(["import", str(folder), "--workdir", str(tmp_path / "run")]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and named in said[0], said
    assert str(folder) in said[0]
    assert not (tmp_path / "run").exists()


def test_there_are_thirty_kinds_and_the_good_ones_are_good(
    good: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    assert len(BAD) >= 30
    for described in (GPT2, NEOX, LLAMA):
        assert main(["import", str(good(described)), "--workdir", str(tmp_path), "--dry_run"]) == 0
    assert not list(tmp_path.iterdir())

"""Converts between Hugging Face folders and our checkpoints, a layer at a time.

Memory is needed for one layer of one array (of queries, keys and values together where they are one), not for
the model. What is written appears whole or not at all.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from icl import model
from icl.data.tokenizer import Tokenizer, tokenizer_from_json
from icl.errors import InputError, check_is_no_url
from icl.interop.huggingface.architectures import ARCHITECTURES, Tensor
from icl.interop.huggingface.folder import Folder, as_text, layer_shapes, named_leaves
from icl.interop.huggingface.layouts import Array
from icl.interop.huggingface.shards import Dtype, Pending, write_shards
from icl.interop.huggingface.tokenizer_files import tokenizer_files
from icl.interop.huggingface.write_config import write_config
from icl.model import ModelConfig
from icl.training.checkpoints import (
    FOLDER,
    PARAMS,
    find_checkpoint,
    read_description,
    read_slices,
    save_params,
)
from icl.training.checksums import PartwiseChecksum
from icl.training.description import Description

MAX_SHARD_BYTES = 5 * 10**9
Progress = Callable[[int], object]
Source = Callable[[str], Iterator[tuple[int, Array]]]
"""Gives a parameter by its path: where each slice begins on the first axis, and the slice."""


def import_folder(
    folder: Folder, workdir: Path, *, step: int = 0, progress: Progress = lambda bytes_: None
) -> Description:
    """Writes the model of a folder as a checkpoint of parameters, verified like any other.

    The arrays are first put together in a file beside it, which takes the size of the model on the disk.

    Args:
      folder: From where.
      workdir: The run's folder to make; it gets `checkpoints/STEP`.
      step: The step that the checkpoint is named by.
      progress: Told how many bytes of parameters were read since it was told last.

    Returns:
      What the checkpoint says of itself.

    Raises:
      InputError: the folder is damaged, or `workdir` holds checkpoints already.
    """
    check_is_no_url(workdir, "the run's folder")
    if (workdir / FOLDER).exists() or (workdir.exists() and not workdir.is_dir()):
        raise InputError(f"{workdir} exists and holds a run: expected a new folder")
    is_new = not workdir.exists()
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".import-", dir=workdir) as staging:
            params, checksums = _staged(folder, Path(staging), progress)
            description = dataclasses.replace(folder.description(step), checksums=checksums)
            save_params(workdir, params, description)
    except BaseException:
        if is_new:
            shutil.rmtree(workdir, ignore_errors=True)
        raise
    return description


def _staged(folder: Folder, staging: Path, progress: Progress) -> tuple[Any, dict[str, str]]:
    """The parameters as arrays that lie in files, and their checksums."""
    target = model.abstract_params(folder.config)
    leaves = named_leaves(target)
    arrays: dict[str, Array] = {}
    sums = {name: PartwiseChecksum(leaf) for name, leaf in leaves.items()}
    for tensor in folder.tensors:
        for path in tensor.paths:
            file = staging / path.replace("/", ".")
            # The view lets Orbax see a plain array; its memory is the file.
            arrays[path] = np.memmap(file, np.float32, "w+", shape=leaves[path].shape).view(np.ndarray)
        for layer, parts in folder.slices(tensor):
            for path, part in zip(tensor.paths, parts, strict=True):
                at = slice(layer, layer + 1) if tensor.is_layered else slice(None)
                arrays[path][at] = part[None] if tensor.is_layered else part
                sums[path].add(layer, np.asarray(arrays[path][at]))
            progress(sum(part.nbytes for part in parts))
    checksums = {f"{PARAMS}/{name}": found.text for name, found in sums.items()}
    structure = jax.tree.structure(target)
    return jax.tree.unflatten(structure, [arrays[name] for name in leaves]), checksums


def export_checkpoint(
    checkpoint: str | Path,
    folder: Path,
    *,
    step: int | None = None,
    architecture: str | None = None,
    dtype: Dtype = "float32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress = lambda bytes_: None,
) -> dict[str, Any]:
    """Writes a checkpoint as a Hugging Face folder, tokenizer included.

    Args:
      checkpoint: A run's folder, its `checkpoints/`, or one `checkpoints/STEP`.
      folder: The folder to make.
      step: Which step; the newest by default.
      architecture: The `model_type`; the first that has such a model by default.
      dtype: Type of the weights in the files.
      max_shard_bytes: Size of a file of weights, at most.
      progress: Told how many bytes of parameters were written since it was told last.

    Returns:
      What `config.json` says.

    Raises:
      InputError: there is no such checkpoint, it is damaged, no architecture has such a model, or the folder
        is not empty.
    """
    at, step = find_checkpoint(checkpoint, step)
    description = read_description(at, step)
    return write_folder(
        folder,
        description.model,
        lambda path: read_slices(at, step, path),
        tokenizer_from_json(description.tokenizer),
        architecture=architecture,
        dtype=dtype,
        max_shard_bytes=max_shard_bytes,
        progress=progress,
    )


def write_folder(
    folder: Path,
    config: ModelConfig,
    params: Any | Source,
    tokenizer: Tokenizer,
    *,
    architecture: str | None = None,
    dtype: Dtype = "float32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress = lambda bytes_: None,
) -> dict[str, Any]:
    """Writes a model as a Hugging Face folder.

    Args:
      folder: The folder to make.
      config: The model.
      params: Its parameters: their tree, or a function that gives slices of one by its path.
      tokenizer: Its tokenizer.
      architecture: As of `export_checkpoint`, with all that follows.
      dtype: Type of the weights in the files.
      max_shard_bytes: Size of a file of weights, at most.
      progress: Told how many bytes of parameters were written since it was told last.

    Returns:
      What `config.json` says.

    Raises:
      InputError: no architecture has such a model, or the folder is not empty.
    """
    described = _described(config, tokenizer, architecture) | {"torch_dtype": dtype}
    files = {"config.json": as_text(described), **tokenizer_files(tokenizer, config.max_length)}
    check_is_no_url(folder, "the folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: expected a new folder")
    source = params if callable(params) else _of_tree(params)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as made:
        writing = Path(made) / "folder"
        writing.mkdir()
        for name, text in files.items():
            (writing / name).write_text(text, encoding="utf-8")
        pending: list[Pending] = []
        sources: list[Iterator[Sequence[Array]]] = []
        for tensor in ARCHITECTURES[described["model_type"]].tensors(config):
            sources.append(_layers(tensor, source))
            pending += _arrays(config, tensor, sources[-1])
        for array in write_shards(writing, pending, dtype=dtype, max_bytes=max_shard_bytes):
            progress(4 * array.size)
        for layers in sources:
            assert next(layers, None) is None  # at its end a checkpoint's array is held against its checksum
        if folder.exists():
            folder.rmdir()
        writing.rename(folder)
    return described


def _of_tree(params: Any) -> Source:
    leaves = named_leaves(params)
    return lambda path: iter([(0, np.asarray(leaves[path], np.float32))])


def describe_export(checkpoint: str | Path, step: int | None, architecture: str | None) -> dict[str, Any]:
    """What `config.json` will say of a checkpoint, but for the type of its weights; errors as in export."""
    description = read_description(checkpoint, step)
    return _described(description.model, tokenizer_from_json(description.tokenizer), architecture)


def _described(config: ModelConfig, tokenizer: Tokenizer, architecture: str | None) -> dict[str, Any]:
    return write_config(
        config, architecture=architecture, start_id=tokenizer.start_id, end_ids=tokenizer.end_ids
    )


def _arrays(config: ModelConfig, tensor: Tensor, layers: Iterator[Sequence[Array]]) -> Iterator[Pending]:
    """The arrays of one kind, to be made in this order from ours."""
    shape = tensor.layout.shape(layer_shapes(config, tensor))
    for layer in range(config.num_layers if tensor.is_layered else 1):
        yield Pending(tensor.name.format(layer), shape, lambda: tensor.layout.join(next(layers)))


def _layers(tensor: Tensor, source: Source) -> Iterator[Sequence[Array]]:
    """Ours of one layer after the other; whole where there are no layers."""
    if not tensor.is_layered:
        yield [np.concatenate([part for _, part in source(path)]) for path in tensor.paths]
        return
    yield from zip(*(_rows(source(path)) for path in tensor.paths), strict=True)


def _rows(slices: Iterator[tuple[int, Array]]) -> Iterator[Array]:
    for _, part in slices:
        yield from part

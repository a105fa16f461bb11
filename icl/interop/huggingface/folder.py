"""A Hugging Face folder as a checkpoint: what it says of itself, and its parameters, each where it belongs.

Opening one reads configuration, tokenizer and the headers of the weights, and holds them against each other;
after that nothing can be missing or of a wrong shape.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from icl import model
from icl.data.huggingface_tokenizer import HuggingFaceTokenizer
from icl.errors import InputError
from icl.interop.huggingface.architectures import ARCHITECTURES, Tensor
from icl.interop.huggingface.layouts import Array, Shape
from icl.interop.huggingface.read_config import read_config
from icl.interop.huggingface.shards import Entry, check_entry, read_array, read_entries, read_json
from icl.interop.huggingface.tokenizer_files import read_tokenizer
from icl.model import ModelConfig
from icl.training.checksums import array_name
from icl.training.description import Description, git_revision, versions

SCHEME = "hf:"
"""What begins the path of such a folder where our checkpoints can stand too."""


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder whose parts were found to match: model, tokenizer, and where each array of the weights is."""

    path: Path
    config: ModelConfig
    tokenizer: HuggingFaceTokenizer
    tensors: tuple[Tensor, ...]
    entries: Mapping[str, Entry]

    def description(self, step: int = 0) -> Description:
        """What our checkpoint of the same model says of itself; `checksums` name the files' content."""
        files = sorted({entry.file for entry in self.entries.values()})
        return Description(
            model=self.config,
            data={},
            tasks={},
            tokenizer=self.tokenizer.to_json(),
            optimizer={},
            train={},
            rung="",
            step=step,
            tokens=0,
            params=model.num_params(self.config),
            train_seed=0,
            config_text="",
            versions=versions(),
            git=git_revision(),
            data_fingerprint="",
            trained_tasks=[],
            excluded={},
            checksums={f"params/{file.name}": f"sha256:{_sha256(file)}" for file in files},
        )

    def slices(self, tensor: Tensor) -> Iterator[tuple[int, list[Array]]]:
        """An array of theirs, layer by layer, as ours: the layer (0 where there are none), and ours of it."""
        shapes = layer_shapes(self.config, tensor)
        theirs = tensor.layout.shape(shapes)
        for layer in range(self.config.num_layers if tensor.is_layered else 1):
            array = read_array(self.entries[tensor.name.format(layer)], theirs)
            yield layer, tensor.layout.split(array, shapes)

    def restore(self, shardings: Any = None, progress: Callable[[int], object] = lambda bytes_: None) -> Any:
        """The parameters, float32; each host reads what its devices hold, an array of theirs at a time.

        Args:
          shardings: Tree of shardings of the parameters; all on the first device by default.
          progress: Told how many bytes of parameters were read since it was told last.

        Raises:
          InputError: a file was damaged or changed since the folder was opened.
        """
        target = model.abstract_params(self.config)
        if shardings is None:
            shardings = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), target)
        placed = dict(zip(leaf_names(target), jax.tree.leaves(shardings), strict=True))
        shapes = {name: leaf.shape for name, leaf in named_leaves(target).items()}
        restored: dict[str, jax.Array] = {}
        for tensor in self.tensors:
            buffers = [_Buffers(shapes[path], placed[path]) for path in tensor.paths]
            for layer, arrays in self.slices(tensor):
                for buffer, array in zip(buffers, arrays, strict=True):
                    buffer.fill(array, layer if tensor.is_layered else None)
                progress(sum(array.nbytes for array in arrays))
            restored |= {path: b.array() for path, b in zip(tensor.paths, buffers, strict=True)}
        structure = jax.tree.structure(target)
        return jax.tree.unflatten(structure, [restored[name] for name in leaf_names(target)])


class _Buffers:
    """The parts of one parameter that this host's devices hold; equal parts stand once."""

    def __init__(self, shape: Shape, sharding: jax.sharding.Sharding) -> None:
        self._shape, self._sharding = shape, sharding
        found = sharding.addressable_devices_indices_map(shape)
        self._places = {
            device: tuple(at.indices(size)[:2] for at, size in zip(index or (), shape, strict=True))
            for device, index in found.items()
        }
        self._parts = {
            place: np.empty([stop - start for start, stop in place], np.float32)
            for place in self._places.values()
        }

    def fill(self, array: Array, layer: int | None) -> None:
        """Takes over a layer of the parameter, or all of one that has no layers."""
        for place, part in self._parts.items():
            rest = place if layer is None else place[1:]
            piece = array[tuple(slice(start, stop) for start, stop in rest)]
            if layer is None:
                part[...] = piece
            elif place[0][0] <= layer < place[0][1]:
                part[layer - place[0][0]] = piece

    def array(self) -> jax.Array:
        """The whole, each part on its devices."""
        shards = [jax.device_put(self._parts[place], device) for device, place in self._places.items()]
        return jax.make_array_from_single_device_arrays(self._shape, self._sharding, shards)


def is_folder_path(path: str | Path) -> bool:
    """Whether a path names a Hugging Face folder: hf:DIR."""
    return str(path).startswith(SCHEME)


def open_folder(path: str | Path) -> Folder:
    """Opens a folder, with or without `hf:` before its path, and checks it.

    Raises:
      InputError: names the file, and the field or array, and what was expected.
    """
    folder = Path(str(path).removeprefix(SCHEME)).expanduser()
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {problem}: expected a Hugging Face folder with config.json")
    described = read_json(folder / "config.json")
    config = read_config(described, str(folder / "config.json"))
    tokenizer = read_tokenizer(folder, described)
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"{folder / 'tokenizer.json'}: has {tokenizer.vocab_size} tokens, more than vocab_size = "
            f"{config.vocab_size} of config.json: expected the model's own tokenizer"
        )
    kind = str(described["model_type"])
    tensors = tuple(ARCHITECTURES[kind].tensors(config))
    entries = _matched(folder, kind, config, tensors, read_entries(folder))
    return Folder(folder, config, tokenizer, tensors, entries)


def _matched(
    folder: Path, kind: str, config: ModelConfig, tensors: Sequence[Tensor], entries: Mapping[str, Entry]
) -> dict[str, Entry]:
    """The entries of all arrays, by their full names; refuses what is missing, odd or left over."""
    architecture, left = ARCHITECTURES[kind], dict(entries)
    matched = {}
    for tensor in tensors:
        shape = tensor.layout.shape(layer_shapes(config, tensor))
        for layer in range(config.num_layers if tensor.is_layered else 1):
            name = tensor.name.format(layer)
            short = name.removeprefix(architecture.prefix)
            found = name if name in left else short
            if found not in left:
                raise InputError(f"{folder}: array {name} is missing from its weights")
            matched[name] = left.pop(found)
            check_entry(matched[name], shape)
    for name in left:
        is_tied_head = config.tied_head and name == architecture.head
        if not is_tied_head and not name.endswith(architecture.buffers):
            raise InputError(
                f"{left[name].file}: array {name} is none of a {kind} model of {config.num_layers} layers "
                "as config.json describes it"
            )
    return matched


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree of parameters by path, as layers/mlp/up/kernel."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {array_name("", path).removeprefix("/"): leaf for path, leaf in found}


def leaf_names(tree: Any) -> list[str]:
    """The paths of `named_leaves`, in the order of the tree's leaves."""
    return list(named_leaves(tree))


def layer_shapes(config: ModelConfig, tensor: Tensor) -> list[Shape]:
    """The shapes of ours that one array of theirs holds: a layer of each where it is layered."""
    leaves = _leaves(config)
    return [leaves[path].shape[1:] if tensor.is_layered else leaves[path].shape for path in tensor.paths]


@functools.lru_cache(maxsize=8)
def _leaves(config: ModelConfig) -> dict[str, Any]:
    return named_leaves(model.abstract_params(config))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def as_text(content: Mapping[str, Any]) -> str:
    """JSON as it is written into a folder."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

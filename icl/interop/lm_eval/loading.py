"""What `--model_args` say, and the model that they name."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icl import model
from icl.data.keys import digest
from icl.data.tokenizer import Tokenizer, tokenizer_from_json
from icl.errors import InputError, check_types
from icl.evaluation.subjects import find_subjects
from icl.model import ModelConfig
from icl.parallel import MeshConfig, Partitioner, make_mesh
from icl.training.checksums import describe_arrays
from icl.training.description import versions

_ROWS = 64


@dataclasses.dataclass(frozen=True)
class ModelArgs:
    """Arguments of the model, beside the checkpoint.

    Attributes:
      step: Step of the checkpoint; the newest by default.
      batch_size: Requests that are read together; "auto" is 64, `max_batch_size` at most.
      max_batch_size: See there.
      max_length: The context in tokens; the model's by default. What is longer loses its start.
      max_gen_toks: Tokens generated at most, where a task does not say.
      add_bos_token: Whether `prompt_start` of the tokenizer stands before a text; where it does not say, yes.
      prefix_token_id: What an empty context is replaced by; the tokenizer's start token by default.
      seed: Another one samples other texts, where a task samples.
      data, fsdp, tensor, sequence: Devices along the axes of the mesh (`MeshConfig`); requests are split over
        `data` and `fsdp`. One device by default.
      device: The harness passes one; which devices there are is JAX's to say (JAX_PLATFORMS).
    """

    step: int | None = None
    batch_size: int | str | None = None
    max_batch_size: int | None = None
    max_length: int | None = None
    max_gen_toks: int = 256
    add_bos_token: bool | None = None
    prefix_token_id: int | None = None
    seed: int = 0
    data: int | None = None
    fsdp: int | None = None
    tensor: int | None = None
    sequence: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        """Checks every argument.

        Raises:
          InputError: names the argument, its value and what was expected.
        """
        check_types(self)
        for name in ("max_batch_size", "max_length", "max_gen_toks"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"model_args: {name} = {value}: expected a positive number")
        if self.rows < 1:
            raise InputError(f"model_args: batch_size = {self.rows}: expected a positive number or 'auto'")

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "ModelArgs":
        """The arguments of a mapping; raises InputError for one that there is not."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in arguments:
            if name not in known:
                raise InputError(
                    f"model_args: no argument {name!r}; expected of checkpoint, {', '.join(known)}"
                )
        return cls(**arguments)

    @property
    def rows(self) -> int:
        """Requests that are read together."""
        size = self.batch_size
        if size is None or (isinstance(size, str) and size.partition(":")[0] == "auto"):
            return min(_ROWS, self.max_batch_size or _ROWS)
        try:
            return int(size)
        except ValueError:
            raise InputError(
                f"model_args: batch_size = {size!r}: expected a positive number or 'auto'"
            ) from None

    def partitioner(self) -> Partitioner | None:
        """The mesh that the arguments name; None on one device."""
        sizes = {axis: getattr(self, axis) for axis in ("data", "fsdp", "tensor", "sequence")}
        given = {axis: size for axis, size in sizes.items() if size is not None}
        return Partitioner(make_mesh(MeshConfig(**given))) if given else None


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model to ask: its parameters, where they belong, and what is told of it in the harness's results."""

    config: ModelConfig
    params: Any
    tokenizer: Tokenizer
    info: Mapping[str, Any]

    def content(self) -> str:
        """Names the model by its shape, its tokenizer and the content of its parameters."""
        sums = describe_arrays(self.params, "params")
        return digest(str(self.config), self.tokenizer.fingerprint, *(f"{n} {sums[n]}" for n in sorted(sums)))


def load(checkpoint: str | Path, step: int | None, partitioner: Partitioner | None) -> Loaded:
    """The model of a checkpoint, each part of it where the mesh wants it.

    Raises:
      InputError: there is no such checkpoint, it is damaged, or its model does not fit on the mesh.
    """
    (subject,) = find_subjects([checkpoint], step)
    description = subject.description
    params = subject.restore(model.param_shardings(description.model, partitioner))
    told = {
        "checkpoint": str(checkpoint),
        "rung": description.rung,
        "step": description.step,
        "tokens": description.tokens,
        "train_seed": description.train_seed,
        "data_fingerprint": description.data_fingerprint,
        "parameters": subject.checksum,
        "trained_with": dict(description.versions),
        "git": description.git,
    }
    tokenizer = tokenizer_from_json(description.tokenizer)
    return Loaded(description.model, params, tokenizer, told | _common(description.model, tokenizer))


def in_memory(config: ModelConfig, params: Any, tokenizer: Tokenizer) -> Loaded:
    """A model that is not from a checkpoint."""
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"tokenizer: has {tokenizer.vocab_size} tokens, expected at most the model's {config.vocab_size}"
        )
    return Loaded(config, params, tokenizer, _common(config, tokenizer))


def _common(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "num_parameters": model.num_params(config),
        "tokenizer": f"{tokenizer.kind} {tokenizer.fingerprint}",
        "versions": versions(),
    }

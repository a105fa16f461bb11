"""What a checkpoint says about itself: all that reading and evaluating it needs, as one JSON object.

The object carries a hash of its own content, and for every array its type, shape and checksum, so that a
damaged checkpoint is refused by name.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from icl.errors import InputError
from icl.model.config import ModelConfig

FORMAT = 1
_PACKAGES = ("icl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "sentencepiece")


@dataclasses.dataclass(frozen=True)
class Description:
    """A checkpoint's own account of itself.

    Attributes:
      model: The model, vocabulary size filled in.
      data: Fields of `DataConfig`.
      tasks: The task families, as `icl.tasks.registry.describe` gives them.
      tokenizer: The tokenizer whole, as `icl.data.tokenizer.tokenizer_from_json` reads it.
      optimizer: Fields of `OptimizerConfig`.
      train: Fields of `TrainConfig`.
      rung: Name in the ladder; "" for a single run.
      step: Optimizer steps done.
      tokens: Positions trained on.
      params: Number of all parameters.
      train_seed: Seed of the initial parameters.
      config_text: Operative gin text of the run.
      versions: Package versions that wrote it.
      git: Revision of the code, or "unknown".
      data_fingerprint: Of the rows trained on.
      trained_tasks: Names of the tasks that fed training rows.
      excluded: What training was kept from seeing, counted: `Setup.excluded`.
      start: Where the run started, if at another checkpoint: `icl.training.fine_tuning.Start.account`, and
        its `FineTuneConfig` under "settings". Older checkpoints have none.
      checksums: Array name -> "float32[4,16]:0123456789abcdef", type, shape and checksum of its bits.
    """

    model: ModelConfig
    data: Mapping[str, Any]
    tasks: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    train: Mapping[str, Any]
    rung: str
    step: int
    tokens: int
    params: int
    train_seed: int
    config_text: str
    versions: Mapping[str, str]
    git: str
    data_fingerprint: str
    trained_tasks: Sequence[str]
    excluded: Mapping[str, Any]
    checksums: Mapping[str, str]
    start: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_imported(self) -> bool:
        """Whether others trained the model, so that what it was trained on is not known."""
        return not self.train

    def was_trained_on(self, task: str) -> bool:
        """Whether a task, or one of the same name but for what stands before it, fed training rows."""
        return any(task == known or task.endswith(f"_{known}") for known in self.trained_tasks)

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the hash of its own content under "sha256"."""
        content = as_json(self) | {"format": FORMAT}
        if not self.start:
            del content["start"]
        return content | {"sha256": _hash(content)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> "Description":
        """Reads `to_json`'s object; InputError names `where` when it is damaged or of another format."""
        rest = {name: value for name, value in content.items() if name != "sha256"}
        if content.get("sha256") != _hash(rest):
            raise InputError(f"{where}: the description is damaged, its content does not match its own hash")
        found = rest.pop("format", None)
        if found != FORMAT:
            raise InputError(f"{where}: the checkpoint has format {found!r}, expected {FORMAT}")
        expected = {field.name for field in dataclasses.fields(cls)}
        if set(rest) != expected - ({"start"} - set(rest)):
            odd = ", ".join(sorted(set(rest) ^ expected))
            raise InputError(f"{where}: the description has other fields than expected: {odd}")
        try:
            model = ModelConfig(**rest.pop("model"))
        except TypeError as error:
            raise InputError(f"{where}: the model is of another version of this package: {error}") from None
        return cls(model=model, **rest)


def as_json(settings: Any) -> dict[str, Any]:
    """A dataclass of settings as plain JSON: tuples become lists, as they would from a file."""
    result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return result


def versions() -> dict[str, str]:
    """Versions of the packages that decide what a run computes; those not installed are left out."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str:
    """Revision of the checkout this package lies in, "-dirty" where tracked files differ; or "unknown"."""
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    if not (root / ".git").exists():
        return "unknown"
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

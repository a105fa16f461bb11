"""Settings of where a run can be watched, checked when they are made."""

import dataclasses
from importlib.util import find_spec
from typing import Literal

from icl.errors import InputError, check_types

_PACKAGE = "wandb"


@dataclasses.dataclass(frozen=True)
class TrackingConfig:
    """Where training and evaluation show their numbers, figures and prompts, beside their own files.

    Attributes:
      tensorboard: Write event files into `tensorboard/` of the run's or the evaluation's folder.
      wandb_project: Project of Weights & Biases to log to as well (extra `wandb`); "" for none.
      wandb_entity: User or team that the project belongs to; "" for the default of whoever is logged in.
      wandb_mode: "offline" keeps all in `wandb/` of the folder, for `wandb sync` later.
    """

    tensorboard: bool = True
    wandb_project: str = ""
    wandb_entity: str = ""
    wandb_mode: Literal["online", "offline"] = "online"

    def __post_init__(self) -> None:
        check_types(self)
        for name, default in (("wandb_entity", ""), ("wandb_mode", "online")):
            value = getattr(self, name)
            if value != default and not self.wandb_project:
                raise InputError(
                    f"TrackingConfig.{name} = {value!r}: expected TrackingConfig.wandb_project beside it"
                )


def check_installed(config: TrackingConfig) -> None:
    """Whether the package that the settings ask for is there; it is not loaded yet.

    Raises:
      InputError: it is not; names the extra that brings it.
    """
    if not config.wandb_project:
        return
    found = find_spec(_PACKAGE)
    # The folder wandb/ that an offline run leaves looks like a package, but has no file.
    if found is None or found.origin is None:
        raise InputError(
            f"TrackingConfig.wandb_project = {config.wandb_project!r}: the package {_PACKAGE} is not"
            f" installed; expected pip install 'icl[{_PACKAGE}]'"
        )

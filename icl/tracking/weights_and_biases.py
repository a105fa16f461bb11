"""Weights & Biases: the same as TensorBoard shows, in a project of theirs (extra `wandb`).

A run that is started again goes on in the same run there, whose name a file of its folder keeps. What it
repeats since its checkpoint is there already and is passed over: Weights & Biases takes no earlier steps.
"""

import io
import json
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from icl.errors import InputError
from icl.tracking.config import TrackingConfig
from icl.tracking.markdown import shortened
from icl.tracking.tracker import Sample

RUN_FILE = "wandb.json"
_COLUMNS = ["prompt", "question", "answer", "expected", "right"]


class WeightsAndBiases:
    """Logs to one run; a `Tracker`. What fails there is told once and ends the logging, never the run."""

    def __init__(self, config: TrackingConfig, folder: Path, kind: str, settings: Mapping[str, Any]) -> None:
        """Begins the run of a folder, or goes on with it.

        Args:
          config: Its project and mode.
          folder: What the run is of; it keeps the run's id, and `wandb/`.
          kind: "train" or "evaluate".
          settings: Shown as the run's configuration.

        Raises:
          InputError: Weights & Biases does not let it begin: nobody is logged in, or it cannot be reached.
        """
        import wandb

        self._wandb = wandb
        self._is_broken = False
        run_id = _run_id(config, folder)
        try:
            self._run = wandb.init(
                project=config.wandb_project,
                entity=config.wandb_entity or None,
                mode=config.wandb_mode,
                dir=folder,
                id=run_id,
                # Offline nothing knows of the run's earlier part; `wandb sync` puts them together.
                resume="allow" if config.wandb_mode == "online" else None,
                name="/".join(folder.absolute().parts[-2:]),
                job_type=kind,
                config=dict(settings),
            )
        except Exception as error:
            raise InputError(
                f"TrackingConfig.wandb_project = {config.wandb_project!r}: Weights & Biases does not begin a"
                f" run ({_line(error)}); expected `wandb login`, or TrackingConfig.wandb_mode = 'offline'"
            ) from error
        self._first_step = self._run.starting_step

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers by their names."""
        self._log(step, lambda: values)

    def figure(self, step: int, name: str, png: bytes) -> None:
        """Logs an image."""
        from PIL import Image

        self._log(step, lambda: {name: self._wandb.Image(Image.open(io.BytesIO(png)))})

    def samples(self, step: int, name: str, samples: Sequence[Sample]) -> None:
        """Logs a table."""
        rows = [
            [one.title, *(_text(text) for text in (one.prompt, one.answer, one.gold)), one.is_right]
            for one in samples
        ]
        self._log(step, lambda: {name: self._wandb.Table(columns=_COLUMNS, data=rows)})

    def sync(self) -> None:
        """Has nothing to do: what is logged is another process's."""

    def close(self, *, failed: bool = False) -> None:
        """Waits until what was logged has been sent, or stored."""
        self._guarded(lambda: self._run.finish(exit_code=int(failed)))

    def _log(self, step: int, content: Callable[[], Mapping[str, Any]]) -> None:
        if step >= self._first_step:
            self._guarded(lambda: self._run.log(dict(content()), step=step))

    def _guarded(self, action: Callable[[], object]) -> None:
        if self._is_broken:
            return
        try:
            action()
        except Exception as error:  # Theirs are of every type, and of their network and processes.
            self._is_broken = True
            told = f"Weights & Biases failed, nothing more is logged there: {_line(error)}"
            tqdm.write(told, file=sys.stderr)


def _run_id(config: TrackingConfig, folder: Path) -> str:
    """The id of the folder's run in this project; made at the first start."""
    path = folder / RUN_FILE
    where = {"project": config.wandb_project, "entity": config.wandb_entity}
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if where.items() <= held.items():
            return str(held["id"])
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: holds no run of Weights & Biases; expected it as it was written, or none"
        ) from error
    made = {**where, "id": secrets.token_hex(8)}
    folder.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(json.dumps(made) + "\n", encoding="utf-8")
    beside.replace(path)
    return made["id"]


def _text(text: str) -> str:
    return shortened(text.encode("utf-8", "replace").decode())


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]

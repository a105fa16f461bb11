"""A stand-in for the package wandb: a module on the path that writes down what it is asked, for tests."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

_MODULE = """
import json
from pathlib import Path

_FOLDER = Path(__file__).parent


class UsageError(Exception):
    pass


def _call(name, /, **arguments):
    if (_FOLDER / f"fail_{name}").exists():
        raise UsageError("no key\\nconfigured")
    with (_FOLDER / "calls.jsonl").open("a") as file:
        file.write(json.dumps({"call": name, **arguments}, default=vars) + "\\n")


class Image:
    def __init__(self, image):
        image.load()
        self.image = image.size


class Table:
    def __init__(self, columns, data):
        self.columns, self.data = columns, data
        json.dumps(data).encode()


class Run:
    def __init__(self, id, resume):
        self._steps = _FOLDER / f"{id}.steps"
        self._last = int(self._steps.read_text()) if resume and self._steps.exists() else -1
        self.starting_step = self._last + 1

    def log(self, data, step):
        assert step >= self._last, "steps never fall"
        self._last = step
        self._steps.write_text(str(step))
        _call("log", step=step, data=data)

    def finish(self, exit_code):
        _call("finish", exit_code=exit_code)


def init(*, id, resume, dir, **arguments):
    _call("init", id=id, resume=resume, dir=str(dir), **arguments)
    return Run(id, resume)
"""


class Calls:
    """What the stand-in was asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def named(self, name: str) -> list[dict[str, Any]]:
        path = self._folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if call["call"] == name]

    def fail_at(self, name: str) -> None:
        """Lets that call raise from now on."""
        (self._folder / f"fail_{name}").touch()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Puts the stand-in where `import wandb` finds it, in this process."""
    folder.mkdir()
    (folder / "wandb.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    return Calls(folder)

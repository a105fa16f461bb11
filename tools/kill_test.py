"""Kills a training run at random moments, also in the middle of saves, and holds it against one never killed.

python tools/kill_test.py --gin_file gin/runs/smoke.gin --gin_bindings 'TrainConfig.steps = 60' --kills 20

Exits with 1 unless every number in metrics.jsonl but the timing, and the checksum of every array of the last
checkpoint, is the same, and every step stands there once.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_TIMES = {"tokens_per_second", "mfu", "data_waits"}


def main() -> int:
    """Trains once undisturbed and once with kills, and compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gin_file", action="append", required=True)
    parser.add_argument("--gin_bindings", action="append", default=[])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    flags = [f"--gin_file={name}" for name in arguments.gin_file]
    flags += [f"--gin_bindings={binding}" for binding in arguments.gin_bindings]
    folder = Path(tempfile.mkdtemp(prefix="kill_test_"))
    whole, killed = folder / "whole", folder / "killed"
    began = time.monotonic()
    if start(whole, flags).wait():
        return 1
    print(f"undisturbed run: {time.monotonic() - began:.0f} s", flush=True)
    rng = random.Random(arguments.seed)
    for number in range(arguments.kills):
        if not kill_once(killed, flags, rng, number, arguments.kills, len(lines(whole))):
            print(f"the run ended before kill {number + 1}: give it more steps")
            return 1
    if start(killed, flags).wait():
        return 1
    same = compare(killed, whole)
    if same:
        shutil.rmtree(folder)
    return 0 if same else 1


def start(workdir: Path, flags: list[str]) -> subprocess.Popen[bytes]:
    """Starts `icl.train`, its stderr into a file beside the folder."""
    with workdir.with_suffix(".stderr").open("ab") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "icl.train", f"--workdir={workdir}", *flags], cwd=ROOT, stderr=stderr
        )


def kill_once(
    workdir: Path, flags: list[str], rng: random.Random, number: int, kills: int, total: int
) -> bool:
    """Starts the run and kills it: a third of the time anywhere, after some steps, or while it saves."""
    process = start(workdir, flags)
    before = len(lines(workdir))
    kind = ("anywhere", "after steps", "in a save")[number % 3]
    room = max(1, (total - before - 1) // (kills - number))
    wanted = before + rng.randint(1, room)
    end = time.monotonic() + rng.uniform(0.2, 15.0)
    reached: dict[str, Callable[[], bool]] = {
        "anywhere": lambda: time.monotonic() > end or len(lines(workdir)) > before + room,
        "after steps": lambda: len(lines(workdir)) >= wanted,
        "in a save": lambda: is_saving(workdir),
    }
    while process.poll() is None and not reached[kind]():
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.03))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = [path.name for path in (workdir / "checkpoints").glob("*")]
    print(f"kill {number + 1:2d} {kind:12s} line {len(lines(workdir)):4d}, checkpoints {saved}", flush=True)
    return True


def is_saving(workdir: Path) -> bool:
    """Whether an uncommitted checkpoint lies in the folder; one left by an earlier kill does not count."""
    paths = list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))
    return any(time.time() - path.stat().st_mtime < 0.5 for path in paths if path.exists())


def lines(workdir: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl, without timing."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    found = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    return [{name: value for name, value in line.items() if name not in _TIMES} for line in found]


def compare(killed: Path, whole: Path) -> bool:
    """Prints whether two runs are the same."""
    sys.path.insert(0, str(ROOT))
    from icl.training.checkpoints import read_description

    steps = [line["step"] for line in lines(killed)]
    checks = {
        "every step once": steps == sorted(set(steps)) and len(steps) == len(lines(whole)),
        "metrics equal": lines(killed) == lines(whole),
        "arrays equal": read_description(killed).checksums == read_description(whole).checksums,
        "no stale folders": not list((killed / "checkpoints").glob("*tmp*")),
    }
    for name, holds in checks.items():
        print(f"{name}: {'yes' if holds else 'NO'}")
    return all(checks.values())


if __name__ == "__main__":
    sys.exit(main())

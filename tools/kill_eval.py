"""Kills an evaluation at random moments, also while it writes, and holds it against one never killed.

    python tools/kill_eval.py --checkpoint RUN --gin_file gin/eval/k_curve.gin --kills 20

A kill counts where the process was alive and had begun to ask. Exits with 1 unless results.jsonl is the same
byte for byte, and every record is there once and equal.
"""

import argparse
import collections
import gzip
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_KINDS = ("anywhere", "after shards", "in a write", "at the end")
_KEY = ("checkpoint", "step", "task", "query", "seed", "k", "instruction", "condition", "template", "order")


def main() -> int:
    """Evaluates once undisturbed and once with kills, and compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", action="append", required=True)
    parser.add_argument("--gin_file", action="append", required=True)
    parser.add_argument("--gin_bindings", action="append", default=[])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    flags = [f"--checkpoint={Path(name).resolve()}" for name in arguments.checkpoint]
    flags += [f"--gin_file={name}" for name in arguments.gin_file]
    flags += [f"--gin_bindings={binding}" for binding in arguments.gin_bindings]
    folder = Path(tempfile.mkdtemp(prefix="kill_eval_"))
    whole = Run(folder / "whole", flags)
    if not whole.finish():
        return 1
    print(f"undisturbed run: {whole.seconds:.0f} s, {len(whole.shards())} shards", flush=True)
    killed = Run(folder / "killed", flags)
    rng = random.Random(arguments.seed)
    for number in range(arguments.kills):
        if not kill_once(killed, whole, rng, number, arguments.kills):
            print(f"the run ended before kill {number + 1}: give it more queries; kept: {folder}")
            return 1
    if not killed.finish():
        return 1
    print(f"last run, to the end: {killed.seconds:.0f} s", flush=True)
    same = compare(killed.output, whole.output)
    if same:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}")
    return 0 if same else 1


class Run:
    """An evaluation in a folder, started again and again; what it says goes into a file beside the folder."""

    def __init__(self, output: Path, flags: Sequence[str]) -> None:
        self.output = output
        self.seconds = 0.0
        self._flags = flags
        self._said = output.with_suffix(".stderr")

    def start(self) -> subprocess.Popen[bytes]:
        """Starts `icl.eval`."""
        command = [sys.executable, "-m", "icl.eval", f"--output_dir={self.output}", *self._flags]
        with self._said.open("wb") as said:
            return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said)

    def finish(self) -> bool:
        """Runs it to its end; whether that is a good one."""
        began = time.monotonic()
        if self.start().wait():
            print(f"the evaluation failed:\n{self._said.read_text()[-2000:]}")
            return False
        self.seconds = time.monotonic() - began
        return True

    def has_begun(self) -> bool:
        """Whether the process that runs has planned, and shows its progress."""
        return b"trial" in self._said.read_bytes()

    def shards(self) -> list[Path]:
        """The shards of records that are there."""
        return sorted((self.output / "records").glob("[!.]*.jsonl.gz"))

    def partial(self) -> list[Path]:
        """Files that are being written, or that a kill left."""
        return [path for folder in (self.output / "records", self.output) for path in folder.glob(".*.part")]


def kill_once(killed: Run, whole: Run, rng: random.Random, number: int, kills: int) -> bool:
    """Starts the evaluation and kills it; returns whether it could, before the end.

    In turn anywhere, after some shards, or while a file is written; the last two hit results and report.
    The missing shards are shared out among the kills, so that the evaluation does not end before the last.
    """
    kind = _KINDS[3] if kills - number <= 2 else _KINDS[number % 3]
    before, left = len(killed.shards()), {path: path.stat().st_mtime_ns for path in killed.partial()}
    total = len(whole.shards())
    room = max(0, (total - before - 1) // max(1, kills - 2 - number))
    process = killed.start()
    if not wait_until(process, killed.has_begun):
        return False
    begun = time.monotonic()
    wanted = before + rng.randint(min(1, room), room)
    after = begun + rng.uniform(0.0, whole.seconds * (room + 1) / total)
    is_reached: dict[str, Callable[[], bool]] = {
        "anywhere": lambda: time.monotonic() > after,
        "after shards": lambda: len(killed.shards()) >= wanted,
        "in a write": lambda: any(is_new(path, left) for path in killed.partial()),
        "at the end": lambda: len(killed.shards()) == total,
    }
    enough = total if kind == "at the end" else before + room + 1
    if not wait_until(process, lambda: is_reached[kind]() or len(killed.shards()) >= enough):
        return False
    if kind != "in a write":
        time.sleep(rng.uniform(0.0, 1.0 if kind == "at the end" else 0.03))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.wait()
    torn = len([path for path in killed.partial() if is_new(path, left)])
    print(
        f"kill {number + 1:2d} {kind:12s} {time.monotonic() - begun:5.1f} s after it began, shards "
        f"{before} -> {len(killed.shards())} of {total}" + (", a file half-written" if torn else ""),
        flush=True,
    )
    return True


def wait_until(process: subprocess.Popen[bytes], is_reached: Callable[[], bool]) -> bool:
    """Waits for a moment; False where the process ends before it."""
    while process.poll() is None:
        if is_reached():
            return True
        time.sleep(0.0005)
    return False


def is_new(path: Path, left: dict[Path, int]) -> bool:
    """Whether a file is not as an earlier kill left it."""
    try:
        return path.stat().st_mtime_ns != left.get(path)
    except FileNotFoundError:
        return False


def compare(killed: Path, whole: Path) -> bool:
    """Prints whether two evaluations are the same."""
    found, wanted = records(killed), records(whole)
    keys = collections.Counter(tuple(json.loads(line).get(name) for name in _KEY) for line in found)
    checks = {
        "results.jsonl equal byte for byte": read(killed) == read(whole),
        f"every record once ({found.total():,})": max(found.values()) == 1 and max(keys.values()) == 1,
        "none lost, none other": found == wanted,
        "nothing half-written left": not list(killed.rglob(".*.part")),
    }
    for name, holds in checks.items():
        print(f"{name}: {'yes' if holds else 'NO'}")
    return all(checks.values())


def read(output: Path) -> bytes:
    """The results of an evaluation."""
    return (output / "results.jsonl").read_bytes()


def records(output: Path) -> collections.Counter[bytes]:
    """How often each line stands in the records of an evaluation."""
    paths = (output / "records").glob("[!.]*.jsonl.gz")
    return collections.Counter(
        line for path in paths for line in gzip.decompress(path.read_bytes()).splitlines()
    )


if __name__ == "__main__":
    sys.exit(main())

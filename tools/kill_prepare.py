"""Kills a corpus preparation at random moments, and holds what it ends in against one never killed.

    python tools/kill_prepare.py --source books --kills 20

Every kill is SIGKILL of all its processes, at a moment drawn evenly from the time that the rest takes. Exits
with 1 unless both folders hold the same files, byte for byte, and no killed one looked whole.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Prepares twice and compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--source", action="append", required=True, help="what to read; may be repeated")
    parser.add_argument("--tokenizer", default="bytes")
    parser.add_argument("--num_processes", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    flags = [f"--source={source}" for source in settings.source]
    flags += [f"--tokenizer={settings.tokenizer}", f"--num_processes={settings.num_processes}"]
    folder = Path(tempfile.mkdtemp(prefix="kill_prepare_"))
    whole, killed = folder / "whole", folder / "killed"
    began = time.monotonic()
    if start(whole, flags).wait():
        return 1
    seconds = time.monotonic() - began
    print(f"undisturbed preparation: {seconds:.1f} s", flush=True)
    rng = random.Random(settings.seed)
    looked_whole = kill_many(killed, flags, rng, settings.kills, seconds)
    if start(killed, flags).wait():
        return 1
    same = content(killed) == content(whole)
    size = sum(map(len, content(whole).values()))
    print(f"same bytes after {settings.kills} kills: {'yes' if same else 'NO'} ({size:,} bytes)")
    shutil.rmtree(folder)
    return 0 if same and not looked_whole else 1


def start(output: Path, flags: list[str]) -> subprocess.Popen[bytes]:
    """Starts a preparation in a process group of its own."""
    command = [sys.executable, "tools/prepare_corpus.py", f"--output={output}", *flags]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def kill_many(output: Path, flags: list[str], rng: random.Random, kills: int, seconds: float) -> bool:
    """Starts and kills; whether a preparation that was killed looked whole before its time.

    One that ended before its kill is begun anew, so that every kill meets work.
    """
    number, looked_whole = 0, False
    while number < kills:
        process = start(output, flags)
        time.sleep(rng.uniform(0.0, seconds))
        if process.poll() is not None:
            shutil.rmtree(output)
            continue
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        number += 1
        shards = len(list(output.glob("shards/*.json")))
        plan = (output / "plan.json").read_text() if (output / "plan.json").exists() else ""
        of = plan.partition('"shards": ')[2].strip("\n }")
        is_whole = (output / "manifest.json").exists()
        looked_whole |= is_whole and str(shards) != of
        print(f"kill {number:2d}: {shards} of {of or '?'} shards, manifest: {is_whole}", flush=True)
    return looked_whole


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    sys.exit(main())

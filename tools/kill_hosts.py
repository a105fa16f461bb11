"""Kills one of several hosts of a training run, again and again, and holds the run against one undisturbed.

python tools/kill_hosts.py --gin_file gin/runs/smoke.gin --kills 20 --hosts 2,4

The hosts are processes of this machine with two simulated devices each. After each kill, once they have met,
the others have to stop within a minute, with a line that says why; then the run goes on with the next number
of hosts. Every
third time one host gets SIGTERM instead: all have to save the same step. Exits with 1 unless all of that
holds and every loss is that of one process to one part in a million.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-6
SECONDS_TO_STOP = 60


def main() -> int:
    """Trains undisturbed in one process, then by killed hosts, and compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gin_file", action="append", required=True)
    parser.add_argument("--gin_bindings", action="append", default=[])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--hosts", default="2,4", help="numbers of hosts, taken in turn")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    flags = [f"--gin_file={name}" for name in arguments.gin_file]
    flags += [f"--gin_bindings={binding}" for binding in arguments.gin_bindings]
    counts = [int(count) for count in arguments.hosts.split(",")]
    folder = Path(tempfile.mkdtemp(prefix="kill_hosts_"))
    whole, killed = folder / "whole", folder / "killed"
    (alone,) = start(whole, flags, hosts=1, devices=2 * counts[0])
    if alone.wait():
        return 1
    rng = random.Random(arguments.seed)
    for number in range(arguments.kills):
        hosts = start(killed, flags, counts[number % len(counts)])
        steps = len(losses(killed)) + rng.randint(1, max(1, len(losses(whole)) // arguments.kills))
        kind = signal.SIGTERM if number % 3 == 2 else signal.SIGKILL
        if not stop_one(hosts, killed, steps, kind, rng, number):
            return 1
    for host in start(killed, flags, counts[-1]):
        if host.wait():
            return 1
    expected, found = losses(whole), losses(killed)
    apart = max(abs(expected[step] / found.get(step, float("inf")) - 1) for step in expected)
    same = sum(expected[step] == found.get(step) for step in expected)
    print(
        f"{len(expected)} losses, {same} of them the same, the others at most {apart:.1e} of themselves apart"
    )
    if apart <= TOLERANCE and len(found) == len(expected):
        shutil.rmtree(folder)
        return 0
    return 1


def start(workdir: Path, flags: list[str], hosts: int, devices: int = 2) -> list[subprocess.Popen[bytes]]:
    """Starts `icl.train` on so many hosts; the stderr of each goes to a file beside the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-m", "icl.train", f"--workdir={workdir}", *flags]
    started = []
    for host in range(hosts):
        joined = [f"--coordinator=127.0.0.1:{port}", f"--num_hosts={hosts}", f"--host={host}"]
        with stderr_of(workdir, host).open("wb") as stderr:
            started.append(
                subprocess.Popen(
                    command + (joined if hosts > 1 else []), cwd=ROOT, env=environment, stderr=stderr
                )
            )
    return started


def stop_one(
    hosts: list[subprocess.Popen[bytes]],
    workdir: Path,
    steps: int,
    kind: signal.Signals,
    rng: random.Random,
    number: int,
) -> bool:
    """Signals one host after so many steps, or before; whether the others did what they should."""
    end = time.monotonic() + (rng.uniform(5, 60) if kind == signal.SIGKILL else float("inf"))
    while len(losses(workdir)) < steps and (time.monotonic() < end or not have_met(workdir)):
        if any(host.poll() is not None for host in hosts):
            break
        time.sleep(0.01)
    if any(host.poll() is not None for host in hosts):
        print(f"a host ended before signal {number + 1}: more steps are needed, or see {workdir}.*.stderr")
        return False
    victim = rng.randrange(len(hosts))
    at = len(losses(workdir))
    hosts[victim].send_signal(kind)
    sent = time.monotonic()
    codes = [host.wait() for host in hosts]
    seconds = time.monotonic() - sent
    others = [host for host in range(len(hosts)) if host != victim]
    if kind == signal.SIGKILL:
        time.sleep(1)  # The line is written after the host's end.
        told = all(b"error: this host ended" in stderr_of(workdir, host).read_bytes() for host in others)
        good = all(codes[host] not in (0, None) for host in others) and told and seconds < SECONDS_TO_STOP
    else:
        good = codes == [0] * len(hosts)
    print(
        f"{number + 1:2d} {kind.name} host {victim} of {len(hosts)} at line {at}: exit codes {codes} after"
        f" {seconds:.0f} s, checkpoints {saved_steps(workdir)}{'' if good else ': WRONG'}",
        flush=True,
    )
    return good


def stderr_of(workdir: Path, host: int) -> Path:
    """Where a host's messages go."""
    return workdir.with_name(f"{workdir.name}.{host}.stderr")


def have_met(workdir: Path) -> bool:
    """Whether all hosts have joined: they then connect to each other, and say so."""
    return b"is connected to" in stderr_of(workdir, 0).read_bytes()


def saved_steps(workdir: Path) -> list[int]:
    """Steps of the committed checkpoints."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def losses(workdir: Path) -> dict[int, float]:
    """Step -> loss of the whole lines of metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return {}
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    return {line["step"]: line["loss"] for line in lines}


if __name__ == "__main__":
    sys.exit(main())

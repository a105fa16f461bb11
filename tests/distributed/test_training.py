"""Several processes train as one: through a kill, SIGTERM, and a restart with another number of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.tracking.events import shown

REPOSITORY = Path(__file__).parents[2]
SETTINGS = (
    "ModelConfig.num_layers = 1",
    "ModelConfig.embed_dim = 16",
    "TrainConfig.steps = 30",
    "TrainConfig.eval_every = 0",
    "TrainConfig.save_every = 5",
    "TrainConfig.batch_tokens = 1024",
    "OptimizerConfig.warmup_steps = 10",
)
Hosts = list[subprocess.Popen[str]]


def start(workdir: Path, *, devices: int, settings: Sequence[Sequence[str]]) -> Hosts:
    """Starts `icl.train` on hosts of so many devices, one for each group of additional settings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }
    command = [sys.executable, "-m", "icl.train", f"--workdir={workdir}", "--gin_file=gin/runs/smoke.gin"]
    if len(settings) > 1:
        command += [f"--coordinator=127.0.0.1:{port}", f"--num_hosts={len(settings)}"]
    started = []
    for host, own in enumerate(settings):
        arguments = [f"--gin_bindings={setting}" for setting in (*SETTINGS, *own)]
        arguments += [f"--host={host}"] if len(settings) > 1 else []
        started.append(
            subprocess.Popen(
                command + arguments, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True
            )
        )
    return started


def end(hosts: Hosts) -> list[tuple[int, str]]:
    """Exit code and stderr of each."""
    said = [host.communicate(timeout=150)[1] for host in hosts]
    return [(host.returncode, text) for host, text in zip(hosts, said, strict=True)]


def losses(workdir: Path) -> dict[int, float]:
    """Step -> loss, of the whole lines."""
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}


def wait_for_step(workdir: Path, step: int, hosts: Hosts) -> None:
    while max(losses(workdir), default=0) < step:
        assert all(host.poll() is None for host in hosts), end(hosts)
        time.sleep(0.02)


@pytest.mark.extended
def test_hosts_that_come_and_go_give_the_losses_of_one_process(tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert [code for code, _ in end(start(whole, devices=4, settings=[()]))] == [0]

    hosts = start(run, devices=2, settings=[(), ()])
    wait_for_step(run, 7, hosts)
    hosts[1].kill()
    killed = time.monotonic()
    code, said = end(hosts)[0]
    assert code != 0 and time.monotonic() - killed < 60
    assert said.count("error: this host ended before its work was done") == 1

    hosts = start(run, devices=2, settings=[(), ()])
    wait_for_step(run, 12, hosts)
    hosts[1].send_signal(signal.SIGTERM)
    ended = end(hosts)
    assert [code for code, _ in ended] == [0, 0], ended
    assert "error" not in ended[0][1] + ended[1][1]
    assert "train: step" in ended[0][1] and "train:" not in ended[1][1]
    last = max(int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit())
    assert 12 <= last == max(losses(run)) < 30

    assert [code for code, _ in end(start(run, devices=4, settings=[()]))] == [0]
    expected, found = losses(whole), losses(run)
    assert found.keys() == expected.keys() == set(range(1, 31))
    assert found == pytest.approx(expected, rel=1e-6)
    watched = [(step, value) for step, name, value in shown(run / "tensorboard") if name == "train/loss"]
    assert watched == sorted(watched) and dict(watched) == pytest.approx(expected, rel=1e-6)
    assert len(watched) == 30 and len(list((run / "tensorboard").iterdir())) == 3


@pytest.mark.slow
def test_hosts_that_were_started_differently_refuse_each_other(tmp_path: Path) -> None:
    hosts = start(tmp_path / "run", devices=1, settings=((), ("TrainConfig.seed = 5",)))
    for code, said in end(hosts):
        assert code == 2
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert errors == ["error: host 1 has another setting than host 0: start all hosts alike"]
    assert not (tmp_path / "run").exists()

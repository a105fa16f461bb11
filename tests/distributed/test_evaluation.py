"""An evaluation by two hosts, each with part of parameters and requests, writes what one host writes."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from icl.training.checkpoints import Checkpoints
from tests.training.small import one_device_setup

REPOSITORY = Path(__file__).parents[2]


def evaluated(run: Path, output_dir: Path, hosts: int) -> list[dict[str, object]]:
    """The results of an evaluation by so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [sys.executable, "-m", "tests.distributed.evaluate_host", str(port), str(hosts)]
    processes = [
        subprocess.Popen(
            [*arguments, str(host), str(run), str(output_dir)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for host in range(hosts)
    ]
    said = [process.communicate(timeout=150)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * hosts, said
    return [json.loads(line) for line in (output_dir / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_hosts_write_what_one_writes(tmp_path: Path) -> None:
    setup = one_device_setup(train={"seed": 3})
    with Checkpoints(tmp_path / "run", keep_last=1) as checkpoints:
        checkpoints.save(5, setup.init_state(), setup.description())
    one, two = (evaluated(tmp_path / "run", tmp_path / f"by{hosts}", hosts) for hosts in (1, 2))
    assert len(one) == len(two) > 50
    numbers = {"value", "ci_low", "ci_high", "band_low", "band_high", "seed_values"}
    for a, b in zip(one, two, strict=True):
        assert {k: v for k, v in a.items() if k not in numbers} == {
            k: v for k, v in b.items() if k not in numbers
        }
        assert a["value"] == pytest.approx(b["value"], abs=2e-5)

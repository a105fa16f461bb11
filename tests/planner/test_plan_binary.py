"""`icl.plan` as a person runs it: exit codes, one line for bad input, the JSON file, the help page."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = ("--gin_file", "runs/smoke.gin")


def plan(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "icl.plan", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_what_fits_ends_with_0_and_leaves_its_json(tmp_path: Path) -> None:
    done = plan(*RUN, "--topology", "gpu:h100x8", "--json", str(tmp_path / "plan.json"))
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = json.loads((tmp_path / "plan.json").read_text())
    assert found["topology"] == "gpu:h100x8" and found["fits"] and found["chips"] == 8
    assert f"{found['params']:,} parameters" in done.stdout and "headroom" in done.stdout


def test_a_search_ranks_as_many_as_it_was_told(tmp_path: Path) -> None:
    done = plan(*RUN, "--search", "2", "--topology", "gpu:h100x4", "--json", str(tmp_path / "plans.json"))
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[:3]] == ["mesh", "1", "2"]
    assert len(json.loads((tmp_path / "plans.json").read_text())) == 2


def test_what_does_not_fit_ends_with_1_and_its_largest_pieces() -> None:
    batch = "TrainConfig.batch_tokens = 268_435_456"
    done = plan(*RUN, "--topology", "gpu:t4x8", "--eval_rows", "1048576", "--gin_bindings", batch)
    assert (done.returncode, done.stderr) == (1, "")
    assert "does not fit" in done.stdout and "GiB  KV cache" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*RUN, "--topology", "v5p:8x8"), "--topology 'v5p:8x8'"),
        ((*RUN, "--topology", "gpu:h100x8", "--search", "--eval"), "no --eval beside it"),
        ((*RUN, "--topology", "gpu:h100x8", "--gin_bindings", "MeshConfig.fsdp = 3"), "fsdp=3"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(arguments: tuple[str, ...], says: str) -> None:
    done = plan(*arguments)
    (line,) = done.stderr.strip().splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith("error: ") and says in line


def test_the_help_fits_a_screen_and_has_no_flag_without_effect() -> None:
    done = plan("--help")
    assert done.returncode == 0 and len(done.stdout.splitlines()) <= 45
    assert "dry_run" not in done.stdout
    for flag in ("gin_file", "gin_bindings", "topology", "json", "rungs", "search", "eval"):
        assert f"--{flag}:" in done.stdout or f"--[no]{flag}:" in done.stdout

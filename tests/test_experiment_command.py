"""The command that experiments share: what it refuses, each in one line and before anything is written."""

from pathlib import Path

import pytest

from tests.experiments import run_experiment


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--experiment_dir is missing"),
        (("--experiment_dir", "{}/out", "--size", "tpu"), "flag --size=tpu"),
        (("--experiment_dir", "{}/out", "--dry_run"), "--dry_run: an experiment has none"),
        (
            ("--experiment_dir", "{}/out", "--gin_file", "runs/smoke.gin"),
            "--gin_file: an experiment has its own",
        ),
        (("--experiment_dir", "{}/out", "--gin_bindings", "ModelConfig.depth = 3"), "no setting 'depth'"),
    ],
)
def test_bad_flags_are_one_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run_experiment("when_it_appears", *(word.format(tmp_path) for word in arguments))
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_help_names_what_an_experiment_reads_and_nothing_else() -> None:
    done = run_experiment("when_it_appears", "--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("--experiment_dir", "--size", "--gin_bindings"))
    assert "--gin_file" not in done.stdout and "--[no]dry_run" not in done.stdout

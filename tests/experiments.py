"""Runs the commands of experiments, as a user does."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def run_experiment(name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m experiments.NAME.run FLAG ...` at the top of the repository; its output is text."""
    command = [sys.executable, "-m", f"experiments.{name}.run", *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)

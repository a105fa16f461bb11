"""Checks that every extra resolves on every Python version that the package says it runs on.

    python tools/check_extras.py [--python 3.12] [--extras beam,harness] [--platform macos] [--lowest]

Asks uv (pip install uv) for a set of releases that fit together; it reads metadata only, so nothing large is
downloaded. A release counts where it has a wheel for that Python, but for a few that are published as pure
Python source. Extras that people want at once are tried together as well. Prints a table, and why where there
is no solution; exit code 1 then.
"""

import argparse
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINUX = "x86_64-manylinux_2_31"  # the oldest that libtpu has wheels for
SOURCE_ONLY = ("promise", "rouge-score", "sqlitedict", "word2number")
TOGETHER = (("tpu", "plan"), ("cuda", "harness", "notebook", "wandb"), ("beam", "dev", "harness", "notebook"))
TOLD = ("jax", "numpy", "torch", "libtpu", "protobuf", "apache-beam")


def main(arguments: Sequence[str] | None = None) -> int:
    """Resolves each extra for each Python, and prints a line for each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = list(project["optional-dependencies"])
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=",".join(supported_versions(project)), help="comma-separated")
    parser.add_argument(
        "--extras", help="comma-separated, each by itself; all, and some together, by default"
    )
    parser.add_argument("--platform", default=LINUX, help=f"as uv names it; {LINUX} by default")
    parser.add_argument(
        "--lowest", action="store_true", help="the oldest releases that pyproject.toml allows"
    )
    settings = parser.parse_args(arguments)
    unknown = sorted(set(filter(None, (settings.extras or "").split(","))) - {*extras})
    if unknown:
        print(f"error: --extras {unknown[0]}: expected among {', '.join(extras)}", file=sys.stderr)
        return 2
    uv = find_uv()
    if not uv:
        print(
            "error: uv is not installed: expected it on PATH or as a package (pip install uv)",
            file=sys.stderr,
        )
        return 2
    sets: list[tuple[str, ...]] = [(), *((name,) for name in extras), *TOGETHER]
    if settings.extras:
        sets = [(name,) for name in settings.extras.split(",")]
    failures = 0
    print("| extras | Python | packages | of which | s |\n|---|---|---|---|---|")
    for names in sets:
        for version in settings.python.split(","):
            start = time.monotonic()
            found, why = resolve(uv, names, version, settings.platform, settings.lowest)
            told = ", ".join(line for line in found if line.split("==")[0] in TOLD) or "no solution"
            label = ", ".join(names) or "(none)"
            print(
                f"| {label} | {version} | {len(found)} | {told} | {time.monotonic() - start:.1f} |",
                flush=True,
            )
            if why:
                failures += 1
                reasons = "\n".join(why.splitlines()[:12])
                print(f"{label} on Python {version}: {reasons}", file=sys.stderr, flush=True)
    return 1 if failures else 0


def supported_versions(project: dict[str, list[str]]) -> list[str]:
    """The Python versions that the package's classifiers name."""
    prefix = "Programming Language :: Python :: "
    return [name.removeprefix(prefix) for name in project["classifiers"] if name.startswith(prefix)]


def find_uv() -> list[str]:
    """The command that starts uv; empty where there is none."""
    if found := shutil.which("uv"):
        return [found]
    return [sys.executable, "-m", "uv"] if find_spec("uv") else []


def resolve(
    uv: Sequence[str], extras: Sequence[str], python: str, platform: str, lowest: bool
) -> tuple[list[str], str]:
    """What would be installed, as `name==version`; and, where nothing fits, why."""
    command = [*uv, "pip", "compile", "pyproject.toml", "--quiet", "--no-header", "--no-annotate"]
    command += ["--python-version", python, "--python-platform", platform, "--only-binary", ":all:"]
    command += [part for name in SOURCE_ONLY for part in ("--no-binary", name)]
    command += [part for name in extras for part in ("--extra", name)]
    if lowest:
        command += ["--resolution", "lowest-direct"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.split("\n")[:-1], done.stderr.strip() if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())

"""Flips single bits in the array files of a run's newest checkpoint and counts how many are refused.

python tools/flip_test.py --run DIR --flips 100 [--binary 3]

Half of the flips are drawn among all bits of the parameters' data files and tried on `restore_params`, as
the evaluation reads them; half among those of parameters and optimizer and tried on the restore of a
resumed training run. The first `--binary` flips of the second half are tried on `icl.train` itself.
"""

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main() -> int:
    """Tries every flip on a fresh copy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="workdir of a training run")
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--binary", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    refused = named = 0
    with tempfile.TemporaryDirectory(prefix="flip_test_") as folder:
        for number in range(arguments.flips):
            copy = Path(folder) / "run"
            shutil.copytree(arguments.run, copy)
            reads_all = number >= arguments.flips // 2
            place = flip(copy, rng, items=("params", "optimizer") if reads_all else ("params",))
            if reads_all and number - arguments.flips // 2 < arguments.binary:
                answer = try_binary(copy)
            else:
                answer = try_restore(copy, reads_all)
            refused += bool(answer)
            named += bool(re.search(r"step \d+: array (params|optimizer)/", answer))
            if (
                not answer
                or number % 10 == 0
                or reads_all
                and number - arguments.flips // 2 < arguments.binary
            ):
                print(f"{number + 1:3d} {place}: {answer[:200] or 'NOT REFUSED'}", flush=True)
            shutil.rmtree(copy)
    print(f"{arguments.flips} flips, {refused} refused, {named} of them naming array and step")
    return 0 if refused == arguments.flips else 1


def flip(run: Path, rng: random.Random, items: tuple[str, ...]) -> str:
    """Flips one of all bits of the items' data files, whose names are chunk indices such as 0.0."""
    newest = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
    files = [path for item in items for path in sorted((newest / item).rglob("*")) if path.is_file()]
    files = [path for path in files if path.name[0].isdigit()]
    bit = rng.randrange(sum(path.stat().st_size for path in files) * 8)
    for path in files:
        size = path.stat().st_size * 8
        if bit < size:
            content = bytearray(path.read_bytes())
            content[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(bytes(content))
            return f"{path.relative_to(run)} bit {bit}"
        bit -= size
    raise AssertionError("a bit lies in one of the files")


def try_restore(run: Path, reads_all: bool) -> str:
    """The message of the refusal; "" where there was none."""
    from icl.config import load_runs
    from icl.errors import InputError
    from icl.training.checkpoints import Checkpoints, restore_params
    from icl.training.setup import Setup

    try:
        if not reads_all:
            restore_params(run)
            return ""
        with Checkpoints(run, keep_last=1) as checkpoints:
            setup = Setup(load_runs([str(run / "config.gin")])[0])
            checkpoints.restore(checkpoints.latest() or 0, setup.abstract_state())
    except InputError as error:
        return str(error)
    return ""


def try_binary(run: Path) -> str:
    """What `icl.train` prints on stderr, if it exits with 2 and one line."""
    command = [sys.executable, "-m", "icl.train", f"--workdir={run}", f"--gin_file={run / 'config.gin'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    return f"exit code 2, {lines[0]}" if done.returncode == 2 and len(lines) == 1 else ""


if __name__ == "__main__":
    sys.exit(main())

"""Plans the models of GPT-3's table 2.1, each on a slice, and prints the table of what a chip holds.

    python tools/plan_ladder.py [--models gpt3_125m,gpt3_175b] [--json FILE]

Batch and context are the paper's. Needs the TPU compiler: pip install 'icl[plan]'; takes minutes, and says on
stderr how far it is. Exit code 1 where one does not fit within 80 % of its chips' memory, 2 where one cannot
be planned.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SLICES: dict[str, tuple[str, dict[str, int]]] = {
    "gpt3_125m": ("v5e:4x4", {"MeshConfig.fsdp": 4}),
    "gpt3_350m": ("v5e:4x4", {"MeshConfig.fsdp": 8, "TrainConfig.accumulation_steps": 2}),
    "gpt3_760m": ("v5e:8x8", {"MeshConfig.fsdp": 16, "TrainConfig.ramp_from": 131_072}),
    "gpt3_1_3b": ("v6e:8x8", {"MeshConfig.fsdp": 16, "TrainConfig.ramp_from": 131_072}),
    "gpt3_2_7b": (
        "v5e:16x16",
        {"MeshConfig.fsdp": 16, "MeshConfig.tensor": 4, "TrainConfig.ramp_from": 131_072},
    ),
    "gpt3_6_7b": ("v5p:4x4x8", {"MeshConfig.fsdp": 32, "TrainConfig.ramp_from": 262_144}),
    "gpt3_13b": (
        "v4:8x8x8",
        {"MeshConfig.fsdp": 32, "MeshConfig.tensor": 4, "TrainConfig.ramp_from": 262_144},
    ),
    "gpt3_175b": (
        "v5p:8x8x8",
        {"MeshConfig.fsdp": 64, "MeshConfig.tensor": 8, "TrainConfig.accumulation_steps": 8},
    ),
}
"""Slice and settings of each; `data` takes the chips that are left. See `MeshConfig` on how much `fsdp`."""
GIB = 2**30


def plan(name: str, topology: str, bindings: dict[str, int], folder: Path) -> dict[str, Any]:
    """What `icl.plan` says of a model, as JSON; an own process, as each slice needs a fresh TPU compiler."""
    out = folder / f"{name}.json"
    command = [
        sys.executable,
        "-m",
        "icl.plan",
        "--gin_file",
        "runs/gpt3.gin",
        "--gin_file",
        f"models/{name}.gin",
    ]
    for setting, value in bindings.items():
        command += ["--gin_bindings", f"{setting} = {value}"]
    done = subprocess.run(
        [*command, "--topology", topology, "--json", str(out)], stdout=subprocess.DEVNULL, check=False
    )
    if not out.exists():  # What is wrong it has said itself.
        raise SystemExit(done.returncode)
    (found,) = json.loads(out.read_text())
    return dict(found)


def row(name: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    size, step = found["bytes"], found["step_seconds"]
    mesh = " x ".join(f"{axis} {count}" for axis, count in found["mesh"].items() if count > 1)
    parts = [
        name.removeprefix("gpt3_").replace("_", ".").upper(),
        f"{found['params'] / 1e9:.3g}B",
        f"{found['topology']} ({found['chips']})",
        mesh,
        f"{found['batch_tokens']:,} in {found['accumulation_steps']}",
        f"{(size['parameters'] + size['optimizer']) / GIB:.2f}",
        f"{size['temporaries'] / GIB:.2f}",
        f"{size['total'] / GIB:.1f} of {size['capacity'] / GIB:.0f} ({found['share']:.0%})",
        f"{step['least']:.2g} to {step['most']:.2g}" if step else "",
        f"{found['compile_seconds']:.0f}",
    ]
    return f"| {' | '.join(parts)} |"


def main() -> int:
    """Plans the models asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", default=",".join(SLICES), help="comma-separated, of " + ", ".join(SLICES))
    parser.add_argument("--json", help="file to write all plans to")
    args = parser.parse_args()
    unknown = [name for name in args.models.split(",") if name not in SLICES]
    if unknown:
        parser.error(f"--models: unknown {unknown[0]!r}, expected some of {', '.join(SLICES)}")
    if args.json and not Path(args.json).parent.is_dir():
        parser.error(f"--json {args.json}: its folder does not exist")
    heads = (
        *("model", "parameters", "slice (chips)", "mesh", "batch in microbatches", "state, GiB"),
        *("temporaries, GiB", "total of HBM, GiB", "step by roofline, s", "compiled in, s"),
    )
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    plans = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models.split(","):
            plans[name] = plan(name, *SLICES[name], Path(folder))
            print(row(name, plans[name]), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(plans, indent=1) + "\n")
    return int(any(found["share"] > 0.8 or not found["fits"] for found in plans.values()))


if __name__ == "__main__":
    sys.exit(main())

"""Measures the memory that conversions need, against the size of a layer and of the model.

    python -m tools.convert_memory [--layers 24] [--width 1024]

Makes a Llama-shaped folder of random weights in several shards, imports it and exports it again, each in a
process of its own, and prints how far its anonymous memory (what cannot be dropped, as pages of files can)
rose above what it was before.
"""

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MEGABYTE = 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 1 where a conversion held more than half of the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    settings = parser.parse_args(arguments)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, context.Pool(1, maxtasksperchild=1) as pool:
        where = Path(folder)
        layer, whole = pool.apply(make_folder, (where / "theirs", settings.layers, settings.width))
        print(f"a layer {layer / MEGABYTE:,.0f} MB, the model {whole / MEGABYTE:,.0f} MB")
        risen = {}
        for name, work in (("import", run_import), ("export", run_export)):
            risen[name], seconds = pool.apply(measured, (work, where))
            print(
                f"{name}: memory rose by {risen[name] / MEGABYTE:,.0f} MB, {risen[name] / layer:.1f} layers "
                f"or {risen[name] / whole:.0%} of the model; {seconds:.1f} s"
            )
    return 0 if max(risen.values()) < whole / 2 else 1


def make_folder(folder: Path, layers: int, width: int) -> tuple[int, int]:
    """Writes the folder, from arrays made one at a time; returns bytes of a layer and of the model."""
    import numpy as np

    from icl import model
    from icl.data.tokenizer import ByteTokenizer
    from icl.interop.huggingface import write_folder
    from icl.interop.huggingface.folder import named_leaves

    config = model.ModelConfig(
        vocab_size=264,
        max_length=64,
        num_layers=layers,
        embed_dim=width,
        num_heads=width // 64,
        activation="swiglu",
        norm="rms",
        positions="rotary",
        qkv_bias=False,
        attention_out_bias=False,
        mlp_bias=False,
        norm_bias=False,
        tied_head=False,
    )
    leaves = named_leaves(model.abstract_params(config))
    rng = np.random.default_rng(0)

    def slices(path: str) -> Any:
        shape = leaves[path].shape
        size = 1 if path.startswith("layers/") else shape[0]
        for start in range(0, shape[0], size):
            yield start, rng.normal(0, 0.02, (size, *shape[1:])).astype(np.float32)

    whole = 4 * model.num_params(config)
    write_folder(folder, config, slices, ByteTokenizer(), max_shard_bytes=whole // 4)
    of_layers = sum(4 * leaf.size for path, leaf in leaves.items() if path.startswith("layers/"))
    return of_layers // layers, whole


def run_import(where: Path) -> None:
    """Folder to checkpoint."""
    from icl.interop.huggingface import import_folder, open_folder

    import_folder(open_folder(where / "theirs"), where / "run")


def run_export(where: Path) -> None:
    """Checkpoint to folder."""
    from icl.interop.huggingface import export_checkpoint

    export_checkpoint(where / "run", where / "back")


def measured(work: Callable[[Path], None], where: Path) -> tuple[int, float]:
    """How many bytes the process's anonymous memory rose by during the work, at its highest; and seconds."""
    import jax

    jax.numpy.zeros(1).block_until_ready()
    before, highest, done = _anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.005):
            highest = max(highest, _anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    work(where)
    took = time.monotonic() - began
    done.set()
    watcher.join()
    return highest - before, took


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status tells of no anonymous memory; expected Linux")


if __name__ == "__main__":
    sys.exit(main())

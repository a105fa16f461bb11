"""Times the data pipeline, one process, no read-ahead: tokens a second of one core, from rows to batches.

    python tools/benchmark_data.py [--cache FOLDER] [--row_length 1024] [--seconds 3]

Corpora are read from a cache of tools/prepare_corpus.py, or from one made of random documents for this run.
The same run times grain's first-fit packer on the same documents, for comparison: it keeps documents whole,
which rows cut by index do not, and has to be replayed where rows are addressed.
"""

import argparse
import functools
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from icl.data.config import DataConfig
from icl.data.corpus import open_corpus
from icl.data.corpus_cache import make_plan, prepare
from icl.data.loader import batches
from icl.data.rows import Rows
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.tasks import Affine, Arithmetic, Cipher, PositionMap, Scrambles, WordLabel, build_tasks

BATCH_ROWS = 16
NUM_BINS = 16
_FAMILIES: Mapping[str, Any] = {
    "cipher": Cipher(),
    "position_map": PositionMap(),
    "word_label": WordLabel(),
    "affine": Affine(),
    "arithmetic": Arithmetic(),
    "scrambles": Scrambles(),
}
_SYNTHETIC = ("cipher", "position_map", "word_label", "affine")
_BATTERY = ("arithmetic", "scrambles")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--cache", default="", help="a folder of tools/prepare_corpus.py, of bytes")
    parser.add_argument("--row_length", type=int, default=1024, help="positions of a row (default: 1024)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: 3)")
    settings = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            _run(settings, settings.cache or _random_cache(Path(folder)))
    except InputError as error:
        print(f"benchmark_data: {error}", file=sys.stderr)
        return 2
    return 0


def _run(settings: argparse.Namespace, cache: str) -> None:
    length, tokenizer = settings.row_length, ByteTokenizer()
    tasks = build_tasks(_FAMILIES)
    corpora = {"text": (cache,)}

    def make(families: Sequence[str], corpora: Mapping[str, tuple[str, ...]]) -> Rows:
        weights = dict.fromkeys(families, 1.0)
        return Rows(DataConfig(row_length=length, weights=weights, corpora=corpora), tasks, tokenizer)

    print(f"{'pipeline':34} {'Mtoken/s':>9} {'of CPU time':>12} {'filled':>8}")
    for name, rows in (
        ("corpus from a cache", make((), corpora)),
        ("the four synthetic families", make(_SYNTHETIC, {})),
        ("the GPT-3 battery", make(_BATTERY, {})),
        ("battery, families and corpus", make((*_SYNTHETIC, *_BATTERY), corpora)),
    ):
        stream = batches(rows, BATCH_ROWS, num_threads=0)
        _report(name, _rate(stream, lambda batch: np.asarray(batch.segments_BT), settings.seconds))
    documents = open_corpus((cache,), tokenizer, length, 0).documents()
    packed = functools.partial(first_fit, list(itertools.islice(documents, 4096)), length)
    _report("grain's first-fit packer", _rate(packed(), lambda row: row["ids_segment_ids"], settings.seconds))
    start = time.monotonic()
    next(batches(make(_BATTERY, corpora), BATCH_ROWS, 1_000_000, num_threads=0))
    print(f"rows opened, and the batch of step 1,000,000 made: {time.monotonic() - start:.2f} s")


def first_fit(documents: Sequence[np.ndarray], length: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Rows of whole documents, cut to a row's length, as grain packs them."""
    source = grain.MapDataset.source([{"ids": document[:length]} for document in documents])
    shuffled = source.shuffle(seed=0).repeat().to_iter_dataset(grain.ReadOptions(num_threads=0))
    packer = grain.experimental.FirstFitPackIterDataset(
        shuffled, length_struct={"ids": length}, num_packing_bins=NUM_BINS
    )
    yield from packer


def _rate(
    stream: Iterator[Any], segments: Callable[[Any], np.ndarray], seconds: float
) -> tuple[float, float, float]:
    """Tokens a second by the clock and by CPU time, and the share of positions that hold one."""
    next(stream)
    filled = positions = 0
    clock, cpu = time.monotonic(), time.process_time()
    while time.monotonic() - clock < seconds:
        ids = segments(next(stream))
        filled += int(np.count_nonzero(ids))
        positions += ids.size
    return filled / (time.monotonic() - clock), filled / (time.process_time() - cpu), filled / positions


def _report(name: str, rate: tuple[float, float, float]) -> None:
    by_clock, by_cpu, filled = rate
    print(f"{name:34} {by_clock / 1e6:9.2f} {by_cpu / 1e6:12.2f} {filled:8.2%}")


def _random_cache(folder: Path) -> str:
    """A cache of documents of random letters, of lengths as in web text: log-normal, 1,500 in the middle."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(7.3, 1.0, 8000), 20, 50_000).astype(int)
    letters = rng.integers(97, 123, int(lengths.sum()), np.uint8).tobytes().decode()
    ends = np.cumsum(lengths).tolist()
    source = folder / "documents.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            file.write(f'{{"text": "{letters[start:end]}"}}\n')
    cache = folder / "cache"
    prepare(make_plan((str(source),), ByteTokenizer()), cache)
    return str(cache)


if __name__ == "__main__":
    sys.exit(main())

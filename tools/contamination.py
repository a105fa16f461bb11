"""Scores an evaluation on queries that do and do not stand in a training corpus.

    python tools/contamination.py --source cache --source 'books/*.txt.gz' --evaluation OUT

A source is a folder of tools/prepare_corpus.py, or whatever that tool reads. OUT is the folder of a finished
evaluation. A query is dirty if N of its words in a row stand in the corpus (GPT-3 paper, appendix C). Writes
OUT/contamination.jsonl, one object a (checkpoint, task, metric, k, instruction) with the value on all, clean
and dirty queries, and OUT/contamination_queries.jsonl, one object a dirty query with what was found of it.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from icl.data.cached_documents import corpus_pieces
from icl.data.documents import Piece
from icl.errors import InputError
from icl.evaluation.contamination import SYNTHETIC, Overlap, find_overlaps, is_synthetic, ngram_length
from icl.evaluation.contamination_results import contamination_results, contamination_table, record_texts
from icl.evaluation.records import Record, read_records, write_file
from icl.progress import Progress

RESULTS = "contamination.jsonl"
QUERIES = "contamination_queries.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--source", action="append", required=True, help="a corpus; may be repeated")
    parser.add_argument("--evaluation", required=True, type=Path, help="folder of an evaluation")
    parser.add_argument(
        "--synthetic",
        action="append",
        default=[],
        help="tasks whose N may be below 8, beside the paper's; wildcards are allowed",
    )
    parser.add_argument("--data_dir", help="folder of the TFDS data sets")
    settings = parser.parse_args(arguments)
    try:
        _run(settings)
    except InputError as error:
        print(f"contamination: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("contamination: stopped; nothing was written", file=sys.stderr)
        return 130
    return 0


def _run(settings: argparse.Namespace) -> None:
    records = _records(settings.evaluation)
    pieces = corpus_pieces(settings.source, "--source", settings.data_dir)
    texts = record_texts(records)
    patterns = (*SYNTHETIC, *settings.synthetic)
    lengths = {
        task: ngram_length(of_task.values(), is_synthetic(task, patterns)) for task, of_task in texts.items()
    }
    overlaps = find_overlaps(texts, _documents(pieces), lengths)
    results = contamination_results(records, overlaps, settings.source)
    _write(settings.evaluation / QUERIES, list(_queries(overlaps)))
    _write(settings.evaluation / RESULTS, [dataclasses.asdict(result) for result in results])
    print(contamination_table(results))
    for task, overlap in overlaps.items():
        if overlap.short:
            print(
                f"{task}: {overlap.short:,} of {len(overlap.queries):,} queries have fewer than N = "
                f"{overlap.words} words and count as clean"
            )


def _records(folder: Path) -> list[Record]:
    """The records of a finished evaluation."""
    if not (folder / "results.jsonl").exists():
        raise InputError(
            f"--evaluation {folder}: has no results.jsonl; expected the folder of a finished evaluation"
        )
    paths = sorted((folder / "records").glob("*.jsonl.gz"))
    records = [record for path in paths for record in read_records(path)]
    if not records:
        raise InputError(f"--evaluation {folder}: has no records/*.jsonl.gz; expected those of an evaluation")
    return records


def _documents(pieces: Sequence[Piece]) -> Iterator[str]:
    size = sum(piece.size for piece in pieces)
    with Progress("searching", size, unit="B") as progress:
        for piece in pieces:
            yield from piece.documents()
            progress.advance(piece.size)


def _queries(overlaps: Mapping[str, Overlap]) -> Iterator[dict[str, Any]]:
    for task, overlap in overlaps.items():
        for query in overlap.queries:
            found = dict(overlap.dirty[query]._asdict()) if query in overlap.dirty else {}
            if overlap.sums and query in overlap.sums:
                found["sum"] = overlap.sums[query]
            if found:
                yield {"task": task, "query": query, "words": overlap.words, **found}


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_file(path, text.encode("utf-8", "surrogatepass"))


if __name__ == "__main__":
    sys.exit(main())

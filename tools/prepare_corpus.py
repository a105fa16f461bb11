"""Tokenises a corpus once, into a folder that training rows are read from by index.

    python tools/prepare_corpus.py --source 'books/*.txt.gz' --tokenizer words.model --output cache

A source is a path, a folder or a glob of text files (each a document) or of JSONL files (each line one, its
text under "text", or `FILE#FIELD`), plain, .gz or .zst; or a TFDS data set, as `tfds:wiki40b/en` or
`tfds:lm1b[validation]`, prepared in ArrayRecord format. A preparation that was killed goes on where it was;
what it makes does not depend on that, nor on the number of processes. Then, in gin:
DataConfig.corpora = {'books': ['cache']}.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from icl.data.corpus_cache import MANIFEST, Plan, check_folder, make_plan, prepare, read_manifest
from icl.data.tokenizer import load_tokenizer
from icl.errors import InputError
from icl.progress import Progress
from icl.tasks.held_out import read_held_out


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--source", action="append", required=True, help="what to read; may be repeated")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--tokenizer", default="bytes", help="'bytes' or a SentencePiece model")
    parser.add_argument(
        "--exclude", action="append", default=[], help="held-out examples whose 13-grams are taken out"
    )
    parser.add_argument("--data_dir", help="folder of the TFDS data sets")
    parser.add_argument("--num_processes", type=int, default=os.cpu_count() or 1, help="default: all cores")
    parser.add_argument(
        "--beam",
        metavar="OPTIONS",
        help="run as an Apache Beam pipeline (extra `beam`) with these options, as in "
        "--beam='--runner=SparkRunner ...'; all workers must see the sources and the output folder",
    )
    parser.add_argument("--dry_run", action="store_true", help="say what would be read, and write nothing")
    settings = parser.parse_args(arguments)
    try:
        _run(settings)
    except InputError as error:
        print(f"prepare_corpus: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("prepare_corpus: stopped; run it again to go on", file=sys.stderr)
        return 130
    return 0


def _run(settings: argparse.Namespace) -> None:
    if settings.num_processes < 1:
        raise InputError(f"--num_processes = {settings.num_processes}: expected at least 1")
    held_out = read_held_out(settings.exclude, {}, "--exclude").texts if settings.exclude else ()
    plan = make_plan(settings.source, load_tokenizer(settings.tokenizer), held_out, settings.data_dir)
    check_folder(plan, settings.output)
    if settings.dry_run:
        _describe(plan, settings.output)
        return
    began = time.monotonic()
    with Progress("tokenising", plan.size, unit="B") as progress:
        made = prepare(
            plan,
            settings.output,
            num_processes=settings.num_processes,
            beam=settings.beam,
            progress=progress.advance,
        )
        progress.finish()
    manifest = read_manifest(settings.output)
    seconds = time.monotonic() - began
    done = f"made in {seconds:.1f} s" if made else "was complete already"
    taken_out = ", ".join(
        f"{name.replace('_', ' ')} {count:,}" for name, count in manifest["excluded"].items()
    )
    print(
        f"{settings.output}: {manifest['documents']:,} documents, {manifest['tokens']:,} tokens, "
        f"{manifest['characters'] / max(1, manifest['tokens']):.2f} characters a token; {done}"
        + (f"; taken out: {taken_out}" if taken_out else "")
    )


def _describe(plan: Plan, folder: Path) -> None:
    for piece in plan.pieces:
        print(f"{piece.size:14,} bytes  {piece.name}")
    state = "is complete already" if (folder / MANIFEST).exists() else "would be written"
    print(f"{plan.size:14,} bytes in {len(plan.pieces)} shards; {folder} {state}")


if __name__ == "__main__":
    sys.exit(main())

"""Trains a lossless SentencePiece tokenizer on text, documents and tasks.

    python tools/train_tokenizer.py --output words.model --vocab_size 2048 'tasks/*.json' books web.jsonl.zst

Inputs are files, globs or folders of text, JSONL of documents (text under "text", or `FILE#FIELD`) and TFDS
data sets (`tfds:lm1b`), as tools/prepare_corpus.py reads them; or .json and .jsonl files of tasks, whose
examples are written as in a prompt. Of more text than --max_characters, lines are drawn evenly. The same
inputs and settings give the same model, byte for byte.
"""

import argparse
import dataclasses
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import sentencepiece

from icl.data.documents import find_pieces
from icl.data.keys import fraction
from icl.data.tfds_documents import TFDS_PREFIX
from icl.data.tokenizer import SentencePieceTokenizer, escape
from icl.errors import InputError
from icl.progress import Progress
from icl.tasks.files import FileTasks, task_name
from icl.tasks.records import RECORD_SUFFIXES, read_records
from icl.tasks.sources import file_suffix, find_files, read_chunks
from icl.tasks.task import Example

_LONGEST_LINE = 2**20


class Input(Protocol):
    """A part of the text, with its size in bytes."""

    @property
    def size(self) -> int: ...

    def documents(self) -> Iterator[str]: ...


@dataclasses.dataclass(frozen=True)
class TaskFile:
    """The examples of a task file, as a prompt writes them."""

    path: Path
    size: int

    def documents(self) -> Iterator[str]:
        template = FileTasks(glob=str(self.path)).template
        for record in read_records(self.path):
            example = Example(record.input.strip(), record.output.strip())
            yield template.context(example) + template.completion(example)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("inputs", nargs="+", help="files, globs, folders or TFDS data sets")
    parser.add_argument("--output", required=True, type=Path, help="file to write the model to")
    parser.add_argument("--vocab_size", type=int, default=8192, help="number of tokens (default: 8192)")
    parser.add_argument("--model_type", choices=("unigram", "bpe"), default="unigram")
    parser.add_argument("--exclude", action="append", default=[], help="file to leave out, without suffix")
    parser.add_argument(
        "--max_characters", type=int, default=50_000_000, help="to train on, 0 for all (default: 50 million)"
    )
    parser.add_argument("--data_dir", help="folder of the TFDS data sets")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    parser.add_argument("--verbose", action="store_true", help="show SentencePiece's own log")
    settings = parser.parse_intermixed_args(arguments)
    try:
        _run(settings)
    except InputError as error:
        print(f"train_tokenizer: {error}", file=sys.stderr)
        return 2
    return 0


def _run(settings: argparse.Namespace) -> None:
    _check_output(settings.output, settings.overwrite)
    if settings.max_characters < 0:
        raise InputError(f"--max_characters = {settings.max_characters}: expected 0 (all) or more")
    found = find_inputs(settings.inputs, settings.exclude, settings.data_dir)
    lines, share = draw_lines(_read(found), settings.max_characters)
    num_characters = sum(map(len, lines))
    drawn = f", one of {round(1 / share)} drawn evenly" if share < 1 else ""
    print(
        f"training {settings.model_type} tokens on {len(lines)} lines, {num_characters} characters{drawn} ..."
    )
    start = time.monotonic()
    model = train(lines, settings.vocab_size, settings.model_type, verbose=settings.verbose)
    tokenizer = SentencePieceTokenizer(model)
    _write(settings.output, model)
    num_tokens = 0
    with Progress("checking", len(lines), unit="line") as progress:
        for line in lines:
            num_tokens += len(tokenizer.encode(line))
            progress.advance()
    print(
        f"{settings.output}: {tokenizer.vocab_size} tokens in {time.monotonic() - start:.0f} s, "
        f"{num_characters / num_tokens:.2f} characters a token, fingerprint {tokenizer.fingerprint}"
    )


def find_inputs(
    inputs: Sequence[str], exclude: Sequence[str] = (), data_dir: str | None = None
) -> list[Input]:
    """What inputs name, each file once; files whose name stands in `exclude` are left out.

    Raises:
      InputError: an input names nothing that can be read.
    """
    found: list[Input] = []
    for source in inputs:
        path = Path(source).expanduser()
        if source.startswith(TFDS_PREFIX) or path.is_dir() or ("#" in source and not path.exists()):
            found += find_pieces([source], "inputs", data_dir)
            continue
        for file in find_files(source, "inputs"):
            if task_name(file) in exclude:
                continue
            if _holds_examples(file):
                found.append(TaskFile(file.resolve(), file.stat().st_size))
            else:
                found += find_pieces([str(file)], "inputs")
    return list(dict.fromkeys(found))


def _holds_examples(path: Path) -> bool:
    """Whether a file is a task: JSON, but for JSONL whose first line has a "text"."""
    if file_suffix(path) != ".jsonl":
        return file_suffix(path) in RECORD_SUFFIXES
    chunk = next(read_chunks(path), b"").lstrip()
    try:
        item = json.loads(chunk.partition(b"\n")[0])
    except ValueError:
        return True  # as which it is refused with its line
    return not isinstance(item, dict) or "text" not in item


def _read(found: Sequence[Input]) -> Iterator[str]:
    """The lines of inputs that hold anything, with a progress bar."""
    with Progress("reading", sum(each.size for each in found), unit="B") as progress:
        for each in found:
            for text in each.documents():
                yield from filter(None, text.split("\n"))
            progress.advance(each.size)


def draw_lines(lines: Iterable[str], max_characters: int) -> tuple[list[str], float]:
    """Lines of at most so many characters together (0: all), and the share that they are of all lines.

    Which ones depends on the lines alone. A line is kept while a random number, keyed by its place, lies
    below a threshold, which is halved whenever the lines kept are too long together.
    """
    kept: list[tuple[float, str]] = []
    share, total = 1.0, 0
    for number, line in enumerate(lines):
        place = fraction("tokenizer line", number) if max_characters else 0.0
        if place >= share:
            continue
        kept.append((place, line))
        total += len(line)
        while max_characters and total > max_characters and len(kept) > 1:
            share /= 2
            kept = [each for each in kept if each[0] < share]
            total = sum(len(each) for _, each in kept)
    return [line for _, line in kept], share


def train(
    lines: Sequence[str], vocab_size: int, model_type: str = "unigram", *, verbose: bool = False
) -> bytes:
    """A SentencePiece model that loses nothing, as bytes; one thread, for more change what unigram learns.

    Raises:
      InputError: there is no text, or the vocabulary is too small or too large for it.
    """
    if not lines:
        raise InputError("inputs: hold no text; expected at least one line")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=map(escape, lines),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            character_coverage=1.0,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["\n"],
            max_sentence_length=_LONGEST_LINE,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            num_threads=1,
            minloglevel=0 if verbose else 2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).rpartition("] ")[2].split())
        raise InputError(f"vocab_size = {vocab_size}: SentencePiece cannot train: {reason}") from error
    return model.getvalue()


def _check_output(path: Path, overwrite: bool) -> None:
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"--output {str(path)!r}: expected a file in a folder that exists")
    if path.exists() and not overwrite:
        raise InputError(f"--output {str(path)!r}: exists already; add --overwrite to replace it")


def _write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.absolute().parent, delete=False) as file:
            file.write(data)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise InputError(f"--output {str(path)!r}: cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())

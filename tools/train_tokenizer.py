"""Trains a lossless SentencePiece tokenizer on text files and task files.

    python tools/train_tokenizer.py --output words.model --vocab_size 2048 'tasks/*.json' book.txt.gz

Inputs are paths or globs, plain or gzipped: .json and .jsonl files are tasks, whose examples are written as
in a prompt; all others are text. The same inputs and settings give the same model, byte for byte.
"""

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import sentencepiece
from tqdm import tqdm

from icl.data.tokenizer import SentencePieceTokenizer, escape
from icl.errors import InputError
from icl.tasks.files import FileTasks, task_name
from icl.tasks.records import RECORD_SUFFIXES, read_records
from icl.tasks.sources import file_suffix, find_files, read_text
from icl.tasks.task import Example

_LONGEST_LINE = 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("inputs", nargs="+", help="text or task files: paths or globs")
    parser.add_argument("--output", required=True, type=Path, help="file to write the model to")
    parser.add_argument("--vocab_size", type=int, default=8192, help="number of tokens (default: 8192)")
    parser.add_argument("--model_type", choices=("unigram", "bpe"), default="unigram")
    parser.add_argument("--exclude", action="append", default=[], help="file to leave out, without suffix")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    parser.add_argument("--verbose", action="store_true", help="show SentencePiece's own log")
    settings = parser.parse_args(arguments)
    try:
        _run(settings)
    except InputError as error:
        print(f"train_tokenizer: {error}", file=sys.stderr)
        return 2
    return 0


def _run(settings: argparse.Namespace) -> None:
    _check_output(settings.output, settings.overwrite)
    paths = [path for pattern in settings.inputs for path in find_files(pattern, "inputs")]
    paths = [path for path in dict.fromkeys(paths) if task_name(path) not in settings.exclude]
    lines = [line for path in tqdm(paths, desc="reading", unit="file") for line in read_lines(path)]
    num_characters = sum(map(len, lines))
    print(f"training {settings.model_type} tokens on {len(lines)} lines, {num_characters} characters ...")
    start = time.monotonic()
    model = train(lines, settings.vocab_size, settings.model_type, verbose=settings.verbose)
    tokenizer = SentencePieceTokenizer(model)
    _write(settings.output, model)
    num_tokens = sum(len(tokenizer.encode(line)) for line in tqdm(lines, desc="checking", unit="line"))
    print(
        f"{settings.output}: {tokenizer.vocab_size} tokens in {time.monotonic() - start:.0f} s, "
        f"{num_characters / num_tokens:.2f} characters a token, fingerprint {tokenizer.fingerprint}"
    )


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, or the examples of a task file as a prompt writes them.

    Raises:
      InputError: the file cannot be read or is malformed.
    """
    if file_suffix(path) not in RECORD_SUFFIXES:
        yield from filter(None, read_text(path).split("\n"))
        return
    template = FileTasks(glob=str(path)).template
    for record in read_records(path):
        example = Example(record.input.strip(), record.output.strip())
        yield from filter(None, (template.context(example) + template.completion(example)).split("\n"))


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

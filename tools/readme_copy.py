"""Runs what the README shows, in a fresh copy of the tree with small files in place of a user's own.

What the README says to save as a module, and to import, is saved and imported in the copy. Commands that make
an environment are passed over: what runs this has one.
"""

import contextlib
import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import zstandard

from icl import app
from icl.data.keys import generator
from tools.readme_commands import Block, blocks, commands_of

NOT_RUN = ("pip", "source")


def run_readme(root: Path, keep: Path | None = None) -> int:
    """Runs the marked blocks of the README in order, up to the first that fails; 0 where none does."""
    if keep and keep.exists():
        return app.refuse(f"--keep {keep}: expected a new folder")
    readme = (root / "README.md").read_text()
    with contextlib.ExitStack() as stack:
        folder = (keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        copy_tree(root, folder)
        save_modules(readme, folder)
        write_files(folder)
        environment = {**os.environ, "PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"}
        for words in marked_commands(blocks(readme, "bash")):
            print(f"$ {shlex.join(words)}", flush=True)
            start = time.monotonic()
            command = [sys.executable if words[0] == "python" else words[0], *words[1:]]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            print(f"  exit code {done.returncode} after {time.monotonic() - start:.0f} s", flush=True)
            if done.returncode:
                print(done.stdout[-2000:] + done.stderr[-4000:], file=sys.stderr)
                return 1
    return 0


def marked_commands(shown: Sequence[Block]) -> Iterator[tuple[str, ...]]:
    """Commands of the blocks below `<!-- run -->`, or `<!-- run: SETTING; SETTING -->` with those bound."""
    for block in shown:
        mark, _, settings = block.comment.partition(":")
        if mark.strip() != "run":
            continue
        bindings = [part.strip() for part in settings.split(";") if part.strip()]
        for command in commands_of(f"```bash\n{block.text}```", "README.md"):
            if command.words[0] in NOT_RUN:
                continue
            is_binary = command.words[1:2] == ("-m",) and command.words[2] in ("icl.train", "icl.eval")
            short = [word for binding in bindings for word in ("--gin_bindings", binding)]
            yield (*command.words, *(short if is_binary else ()))


def copy_tree(root: Path, folder: Path) -> None:
    """Copies what git knows or would add, and nothing that was made here."""
    listing = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(
        None, subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\0")
    ):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, folder / name)


def save_modules(readme: str, folder: Path) -> None:
    """Does what the README says of its new family: saves it as a module, and imports it where it says."""
    (code,) = [block.text for block in blocks(readme, "python") if "@register" in block.text]
    saved = re.search(r"Save it\s+as\s+`([\w/]+\.py)`", readme)
    added = re.search(r"Add `(from [^`]+)` to \[`[^`]+`\]\(([\w/]+\.py)\)", readme)
    assert saved and added, "the README says no more where its family is saved, or where it is imported"
    (folder / saved[1]).write_text(code)
    with (folder / added[2]).open("a") as package:
        package.write(f"\n{added[1]}\n")


def write_files(folder: Path) -> None:
    """Books and pages of random English words, a benchmark to keep out, and two tasks."""
    listed = gzip.decompress((folder / "icl/tasks/english_words.txt.gz").read_bytes()).decode().split()
    words = [word for word in listed if word.isalpha()]
    rng = generator("readme")
    text = [" ".join(rng.choice(words, 12)) for _ in range(6000)]
    for name in ("books", "benchmark", "my_tasks"):
        (folder / name).mkdir()
    (folder / "books/book.txt.gz").write_bytes(gzip.compress("\n".join(text[:3000]).encode()))
    pages = "\n".join(json.dumps({"text": line}) for line in text[3000:])
    (folder / "web.jsonl.zst").write_bytes(zstandard.compress(pages.encode()))
    benchmark = [{"question": line, "answer": line.split()[0]} for line in text[5900:]]
    (folder / "benchmark/held.jsonl").write_text("\n".join(map(json.dumps, benchmark)))
    for name, shift in (("antonym", 1), ("plural", 2)):
        pairs = [{"input": word[:6], "output": words[n - shift][:6]} for n, word in enumerate(words[:60])]
        (folder / f"my_tasks/{name}.json").write_text(json.dumps(pairs))

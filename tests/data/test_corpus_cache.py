"""Claims about the corpus cache: the same bytes however it was made, refused where it is not what it says."""

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from icl.data.corpus import open_corpus
from icl.data.corpus_cache import MANIFEST, make_plan, prepare
from icl.data.tokenizer import ByteTokenizer, SentencePieceTokenizer
from icl.errors import InputError
from tools.prepare_corpus import main
from tools.train_tokenizer import train

TOKENIZER = ByteTokenizer()
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    rng = random.Random(0)
    for i in range(5):
        words = " ".join(f"w{rng.randrange(900)}" for _ in range(2000))
        (folder / f"book{i}.txt").write_text(words.replace(" w7", "\nw7"))
    lines = [json.dumps({"text": f"document {i} " * rng.randrange(1, 30)}) for i in range(300)]
    (folder / "web.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def cache(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "cache"
    assert prepare(make_plan([str(sources)], TOKENIZER), folder)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cache_gives_the_rows_of_its_sources(sources: Path, cache: Path) -> None:
    cached, direct = (open_corpus([str(path)], TOKENIZER, 100, 1) for path in (cache, sources))
    assert cached.num_blocks == direct.num_blocks and cached.num_documents == direct.num_documents == 305
    for index in (0, 1, 57, direct.num_blocks + 3, 10**9):
        assert np.array_equal(cached.block(index), direct.block(index))
    again = pickle.loads(pickle.dumps(cached))
    assert np.array_equal(again.block(57), cached.block(57)) and len(pickle.dumps(cached)) < 20_000


def test_the_number_of_processes_changes_no_byte(sources: Path, cache: Path, tmp_path: Path) -> None:
    prepare(make_plan([str(sources)], TOKENIZER), tmp_path / "two", num_processes=2)
    assert content(tmp_path / "two") == content(cache)
    assert not prepare(make_plan([str(sources)], TOKENIZER), tmp_path / "two")


def test_a_larger_vocabulary_is_stored_too(sources: Path, tmp_path: Path) -> None:
    tokenizer = SentencePieceTokenizer(train((sources / "book0.txt").read_text().split("\n"), 274))
    prepare(make_plan([str(sources)], tokenizer), tmp_path / "cache")
    cached, direct = (open_corpus([str(p)], tokenizer, 64, 1) for p in (tmp_path / "cache", sources))
    assert np.array_equal(cached.block(5), direct.block(5))


@pytest.mark.slow
def test_a_preparation_killed_at_any_moment_ends_in_the_same_bytes(
    sources: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    command = [sys.executable, "tools/prepare_corpus.py", "--source", str(sources), "--output", str(folder)]
    rng = random.Random(1)
    began = time.monotonic()
    for _ in range(4):
        process = subprocess.Popen(
            [*command, "--num_processes", "2"], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(0.5, 3.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (folder / MANIFEST).exists() or content(folder) == content(cache)
        if time.monotonic() - began > 60:
            break
    assert main(command[2:]) == 0
    assert content(folder) == content(cache)


def test_what_is_missing_is_made_again(sources: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    shutil.copytree(cache, folder)
    (folder / MANIFEST).unlink()
    (folder / "shards" / "00002.json").unlink()
    (folder / "shards" / "00002.tokens").write_bytes(b"torn")
    (folder / "shards" / "00003.tokens.123.tmp").write_bytes(b"left")
    assert prepare(make_plan([str(sources)], TOKENIZER), folder)
    assert content(folder) == content(cache)


def test_bad_caches_and_folders_are_named(sources: Path, cache: Path, tmp_path: Path) -> None:
    def refused(folder: Path, says: str) -> None:
        with pytest.raises(InputError) as caught:
            open_corpus([str(folder)], TOKENIZER, 64, 0)
        assert says in str(caught.value) and "\n" not in str(caught.value)

    def copy(name: str) -> Path:
        return Path(shutil.copytree(cache, tmp_path / name))

    torn = copy("torn")
    with (torn / "shards" / "00001.tokens").open("r+b") as file:
        file.truncate(100)
    refused(torn, "00001.tokens: has 100 bytes")
    missing = copy("missing")
    (missing / "shards" / "00001.lengths").unlink()
    refused(missing, "00001.lengths: has None bytes")
    broken = copy("broken")
    (broken / MANIFEST).write_text('{"format": 1')
    refused(broken, "manifest.json: is no JSON")
    newer = copy("newer")
    (newer / MANIFEST).write_text('{"format": 9}')
    refused(newer, "format 9, expected 1")
    tokenizer = SentencePieceTokenizer(train((sources / "book0.txt").read_text().split("\n"), 274))
    with pytest.raises(InputError, match="made with another tokenizer"):
        open_corpus([str(cache)], tokenizer, 64, 0)
    with pytest.raises(InputError, match="cache of other sources"):
        prepare(make_plan([str(sources)], tokenizer), cache)
    with pytest.raises(InputError, match="holds files but no plan.json"):
        prepare(make_plan([str(sources)], TOKENIZER), sources)
    held_out = " ".join(f"word{i}" for i in range(20))
    with pytest.raises(InputError, match="without these held-out texts"):
        open_corpus([str(cache)], TOKENIZER, 64, 0, [held_out])


@pytest.mark.parametrize("limit_kb", [1, 20, 60])
def test_a_full_disk_is_one_line_and_preparation_goes_on_later(
    sources: Path, cache: Path, tmp_path: Path, limit_kb: int
) -> None:
    """A file size limit stands for the full disk: writes fail in the same places."""
    folder = tmp_path / "cache"
    script = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_kb} * 100,) * 2);"
        "from tools.prepare_corpus import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["--source", str(sources), "--output", str(folder), "--num_processes", "1"]
    found = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("prepare_corpus")]
    assert found.returncode == 2 and "cannot be written" in line and "Traceback" not in found.stderr
    assert not (folder / MANIFEST).exists()
    assert main(arguments) == 0 and content(folder) == content(cache)

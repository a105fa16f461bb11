"""Claims about preparation as an Apache Beam pipeline, where the extra `beam` is installed."""

import importlib.util
from pathlib import Path

import pytest

from icl.data.corpus_cache import make_plan, prepare
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError

OPTIONS = "--runner=DirectRunner"
needs_beam = pytest.mark.skipif(not importlib.util.find_spec("apache_beam"), reason="needs the extra beam")


def write(folder: Path) -> str:
    for i in range(5):
        (folder / f"book{i}.txt").write_text(f"book {i} " * 200)
    return str(folder)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(bool(importlib.util.find_spec("apache_beam")), reason="the extra beam is installed")
def test_without_beam_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("text")
    with pytest.raises(InputError, match=r"pip install 'icl\[beam\]'"):
        prepare(make_plan([str(tmp_path)], ByteTokenizer()), tmp_path / "cache", beam=OPTIONS)
    assert not (tmp_path / "cache").exists()


@needs_beam
def test_a_pipeline_makes_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    plan = make_plan([write(tmp_path / "books")], ByteTokenizer(), ["book 3 " * 13])
    prepare(plan, tmp_path / "here")
    prepare(plan, tmp_path / "beam", beam=OPTIONS)
    assert content(tmp_path / "beam") == content(tmp_path / "here")


@needs_beam
def test_a_bad_document_ends_a_pipeline_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "web.jsonl").write_text('{"text": "a"}\n{"text')
    with pytest.raises(InputError, match=r"web\.jsonl, line 2: not JSON"):
        prepare(make_plan([str(tmp_path)], ByteTokenizer()), tmp_path / "cache", beam=OPTIONS)
    assert not (tmp_path / "cache").exists()


@needs_beam
def test_an_unknown_runner_is_named(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("text")
    with pytest.raises(InputError, match="--beam='--runner=NoRunner': Unexpected pipeline runner"):
        prepare(make_plan([str(tmp_path)], ByteTokenizer()), tmp_path / "cache", beam="--runner=NoRunner")

"""Claims about where documents come from: every form of file gives the same ones, and a bad line is named."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.data.corpus import open_corpus
from icl.data.documents import JsonlPiece, find_pieces
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from tests.data.tfds_set import prepare_set
from tools.train_tokenizer import find_inputs

TEXTS = [
    "It was the best of times.\nIt was the worst.\n",
    "Grüße, 東京 \U0001f600",
    "",
    " x\r",
    "one\x00two ",
]
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def documents(*sources: object, **settings: Any) -> list[str]:
    pieces = find_pieces([str(source) for source in sources], "--source", **settings)
    return [text for piece in pieces for text in piece.documents()]


def jsonl(texts: list[str], field: str = "text") -> bytes:
    return "".join(json.dumps({"id": 1, field: text}, ensure_ascii=False) + "\n" for text in texts).encode()


@pytest.mark.parametrize("packing", PACKED)
def test_a_text_file_is_one_document_however_it_is_packed(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"book.txt{packing}"
    path.write_bytes(PACKED[packing](TEXTS[0].encode()))
    assert documents(path) == documents(tmp_path) == documents(tmp_path / "*") == [TEXTS[0]]


@pytest.mark.parametrize("packing", PACKED)
def test_a_line_of_jsonl_is_one_document_however_it_is_packed(tmp_path: Path, packing: str) -> None:
    (tmp_path / f"web.jsonl{packing}").write_bytes(PACKED[packing](jsonl(TEXTS) + b"\n \n"))
    assert documents(tmp_path) == TEXTS
    (tmp_path / f"web.jsonl{packing}").write_bytes(PACKED[packing](jsonl(TEXTS, "body")))
    assert documents(f"{tmp_path}/web.jsonl{packing}#body") == TEXTS


def test_a_stream_of_several_compressed_frames_is_read_whole(tmp_path: Path) -> None:
    for packing in (".gz", ".zst"):
        parts = [PACKED[packing](jsonl([text])) for text in TEXTS]
        (tmp_path / f"web.jsonl{packing}").write_bytes(b"".join(parts))
        assert documents(tmp_path / f"web.jsonl{packing}") == TEXTS


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=12),
    piece_bytes=st.integers(1, 200),
    last_line=st.booleans(),
)
def test_pieces_of_any_size_give_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], piece_bytes: int, last_line: bool
) -> None:
    path = tmp_path_factory.mktemp("pieces") / "web.jsonl"
    path.write_bytes(jsonl(texts).removesuffix(b"" if last_line else b"\n"))
    assert documents(path, piece_bytes=piece_bytes) == texts
    pieces = find_pieces([str(path)], "--source", piece_bytes=piece_bytes)
    assert len({piece.fingerprint() for piece in pieces}) == len(pieces)


def test_a_file_that_two_sources_name_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("text")
    assert documents(tmp_path, tmp_path / "book.txt", tmp_path / ".." / tmp_path.name / "b*.txt") == ["text"]


def test_a_folder_gives_its_text_and_jsonl_files_and_no_others(tmp_path: Path) -> None:
    for name in ("b/one.txt", "a.md", ".hidden.txt", ".git/x.txt", "picture.png", "c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert documents(tmp_path) == ["a.md", "b/one.txt"]


BAD_LINES = {
    "a line cut in half": (b'{"text": "abc', "line 3: not JSON"),
    "no object": (b"[1, 2]", "line 3: '\\[1, 2\\]'; expected an object"),
    "another field": (b'{"body": "x"}', "line 3: no field 'text', but \\['body'\\]"),
    "no text": (b'{"text": 3}', "line 3: text = '3'"),
    "invalid UTF-8": (b'{"text": "\xff"}', "line 3: not UTF-8"),
    "a lone surrogate": (b'{"text": "\\ud800"}', "line 3: text holds a lone surrogate"),
    "endless brackets": (b"[" * 100_000, "line 3: not JSON"),
}


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, bad: str) -> None:
    line, message = BAD_LINES[bad]
    path = tmp_path / "web.jsonl"
    for piece_bytes in (2**20, 16):  # in pieces too, lines are counted from the file's start
        path.write_bytes(jsonl(TEXTS[:2]) + line + b"\n" + jsonl(TEXTS))
        with pytest.raises(InputError, match=rf"web\.jsonl, {message}"):
            documents(path, piece_bytes=piece_bytes)
    packed = tmp_path / "web.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match=rf"web\.jsonl\.gz, {message}"):
        documents(packed)


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_a_compressed_file_that_was_cut_is_refused(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"book.txt{packing}"
    path.write_bytes(PACKED[packing]("".join(map(str, range(9999))).encode())[:-9])
    with pytest.raises(InputError, match=rf"book\.txt\{packing}: cannot be read"):
        documents(path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("short")
    (piece,) = find_pieces([str(path)], "--source")
    path.write_text("longer than before")
    with pytest.raises(InputError, match="expected a file that does not change"):
        piece.fingerprint()


def test_only_jsonl_that_is_not_packed_is_divided(tmp_path: Path) -> None:
    (tmp_path / "web.jsonl").write_bytes(jsonl(TEXTS))
    (tmp_path / "web.jsonl.gz").write_bytes(gzip.compress(jsonl(TEXTS)))
    plain = find_pieces([str(tmp_path / "web.jsonl")], "--source", piece_bytes=10)
    packed = find_pieces([str(tmp_path / "web.jsonl.gz")], "--source", piece_bytes=10)
    assert len(plain) > 1 == len(packed) and all(isinstance(piece, JsonlPiece) for piece in plain)


def texts(numbers: range) -> set[str]:
    return {f"Document {i}: Grüße {'x' * (i % 50)}" for i in numbers}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tfds")
    rows = [{"text": text} for text in sorted(texts(range(700)))]
    prepare_set(folder, "lm1b", {"text": tfds.features.Text()}, {"train": rows, "test": rows[:10]}, "1.1.0")
    features = {
        "title": tfds.features.Text(),
        "text": tfds.features.Text(),
        "n": tfds.features.Scalar(np.int64),
    }
    prepare_set(folder, "several", features, {"train": [{"title": "t", "text": "x", "n": 3}]})
    return folder


def test_a_tfds_data_set_gives_its_documents_in_pieces_of_any_size(data_dir: Path) -> None:
    source, folder = "tfds:lm1b", {"data_dir": str(data_dir)}
    whole = documents(source, **folder)
    assert set(whole) == texts(range(700)) and len(whole) == 700
    for piece_bytes in (1000, 5000):
        assert documents(source, piece_bytes=piece_bytes, **folder) == whole
    assert len(documents("tfds:lm1b:1.1.0[test]", **folder)) == 10
    assert len(documents("tfds:lm1b[train[:10%]+test]#text", **folder)) == 80
    assert documents(f"tfds:{data_dir}/several/1.0.0#title") == ["t"]
    assert documents(f"tfds:{data_dir}/lm1b/1.1.0") == whole


def test_the_tokenizer_tool_reads_a_tfds_data_set(data_dir: Path) -> None:
    (found,) = find_inputs([f"tfds:{data_dir}/lm1b/1.1.0"])
    assert set(found.documents()) == texts(range(700)) and found.size > 1000


def test_a_corpus_of_tfds_is_cut_into_blocks_like_one_of_files(data_dir: Path, tmp_path: Path) -> None:
    source = f"tfds:{data_dir}/lm1b/1.1.0"
    (tmp_path / "web.jsonl").write_bytes(jsonl(documents(source)))
    found, expected = (open_corpus([s], ByteTokenizer(), 100, 0) for s in (source, f"{tmp_path}/web.jsonl"))
    assert found.num_tokens == expected.num_tokens
    assert all((found.block(i) == expected.block(i)).all() for i in range(20))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tfds:wiki41b/en", r"did you mean 'wiki40b'\?"),
        ("tfds:wiki40b/enn", r"did you mean wiki40b/en\?"),
        ("tfds:c4/en", r"tfds:c4/en: not prepared in .*; to download and prepare it: tfds build c4/en"),
        ("tfds:lm1b[tran]", "no split 'tran'; there are test, train"),
        ("tfds:lm1b#body", r"no text under 'body'; expected #FIELD with one of \['text'\]"),
        ("tfds:{}/several/1.0.0#n", r"no text under 'n'; expected #FIELD with one of \['text', 'title'\]"),
        ("tfds:[train]", "expected tfds:NAME"),
    ],
)
def test_a_tfds_name_that_is_wrong_says_what_was_meant(data_dir: Path, source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        documents(source.replace("{}", str(data_dir)), data_dir=str(data_dir))


def test_a_data_set_in_tfrecord_format_comes_with_the_command_that_converts_it(tmp_path: Path) -> None:
    features = {"text": tfds.features.Text()}
    folder = prepare_set(tmp_path, "records", features, {"train": [{"text": "x"}]})
    info = json.loads((folder / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"is in TFRecord format.*store_as_tfds_dataset.*array_record"):
        documents(f"tfds:{folder}")
    with pytest.raises(InputError, match=rf"is a TFDS data set; write tfds:{folder}"):
        documents(folder)

"""Claims about corpora."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from icl.data.config import DataConfig
from icl.data.corpus import Corpus, Documents, open_corpus
from icl.data.rows import Rows
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError

TOKENIZER = ByteTokenizer()


@pytest.fixture
def books(tmp_path: Path) -> Path:
    for i in range(3):
        text = "".join(f"book {i} line {j}\n" for j in range(40 + 10 * i))
        (tmp_path / f"{i}.txt.gz").write_bytes(gzip.compress(text.encode()))
    return tmp_path


def stream(corpus: Corpus, epoch: int = 0) -> list[np.ndarray]:
    return [corpus.block(epoch * corpus.num_blocks + i) for i in range(corpus.num_blocks)]


def test_documents_are_joined_with_the_start_token(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\r\ntwo")
    (tmp_path / "b.txt").write_text("three")
    corpus = open_corpus([str(tmp_path / "*.txt"), str(tmp_path / "b.txt")], TOKENIZER, 14, 0)
    start = [TOKENIZER.start_id]
    orders = {tuple(corpus.block(epoch).tolist()) for epoch in range(20)}
    one, two = list(b"one\ntwo"), list(b"three")
    assert orders == {(*start, *one, *start, *two, *start), (*start, *two, *start, *one, *start)}


@pytest.mark.parametrize("positions", [1, 7, 64, 100])
def test_an_epoch_predicts_every_token_once(positions: int) -> None:
    """Numbered tokens in documents of many lengths, some of a single token."""
    lengths = np.array([5, 1, 90, 3, 1, 1, 200, 17])
    tokens = np.arange(1, lengths.sum() + 1, dtype=np.int32)
    documents = Documents([lengths[:3], lengths[3:]], tokens=[tokens[:96], tokens[96:]])
    corpus = Corpus(documents, positions, seed=3, start_id=0)
    for epoch in range(3):
        targets = np.concatenate([block[1:] for block in stream(corpus, epoch)])
        assert sorted(targets.tolist()) == [0] * len(lengths) + tokens.tolist()
        heads = [block[0] for block in stream(corpus, epoch)]
        assert len(heads) == corpus.num_blocks == -(-(lengths.sum() + len(lengths)) // positions)


def test_blocks_are_stretches_of_one_stream() -> None:
    """Small blocks are cuts of the large one: the stream of the epoch."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, 30)
    documents = Documents([lengths], tokens=[rng.integers(1, 250, lengths.sum()).astype(np.int32)])
    (whole,) = stream(Corpus(documents, int(lengths.sum()) + 30, 5, 0))
    small = Corpus(documents, 13, 5, 0)
    cuts = {whole[i : i + 14].tobytes() for i in range(0, len(whole) - 1, 13)}
    assert {block.tobytes() for block in stream(small)} == cuts
    parts = [tuple(part.tolist()) for part in np.split(whole, np.flatnonzero(whole == 0))[1:-1]]
    known = np.split(documents.read(0, 0, int(lengths.sum())), np.cumsum(lengths)[:-1])
    assert sorted(parts) == sorted((0, *part.tolist()) for part in known)


def test_epochs_and_seeds_have_another_order(books: Path) -> None:
    one, two = (open_corpus([str(books / "*")], TOKENIZER, 50, seed) for seed in (0, 1))
    orders = [
        b"".join(block.tobytes() for block in stream(corpus, epoch))
        for corpus, epoch in ((one, 0), (one, 1), (two, 0))
    ]
    assert len(set(orders)) == 3 and one.fingerprint == two.fingerprint
    assert np.array_equal(one.block(10**9), open_corpus([str(books / "*")], TOKENIZER, 50, 0).block(10**9))


def test_long_texts_are_tokenized_in_pieces_without_loss(tmp_path: Path) -> None:
    text = "a line of text\n" * 20_000
    (tmp_path / "long.txt").write_text(text)
    corpus = open_corpus([str(tmp_path / "long.txt")], TOKENIZER, len(text) + 1, 0)
    assert TOKENIZER.decode(corpus.block(0).tolist()) == text


@pytest.mark.parametrize("mask", [True, False])
def test_documents_are_segments_when_masked(books: Path, mask: bool) -> None:
    config = DataConfig(row_length=1500, corpora={"book": (str(books / "*"),)}, mask_segments=mask)
    row = Rows(config, {}, TOKENIZER)[0]
    inputs, segments, positions = (np.asarray(x) for x in (row.inputs_BT, row.segments_BT, row.positions_BT))
    used = segments > 0
    starts = np.flatnonzero((inputs == TOKENIZER.start_id) & used)
    assert len(starts) >= 1 and np.asarray(row.weights_BT)[used].all()
    if not mask:
        assert set(segments[used]) == {1} and (positions[used] == np.arange(used.sum())).all()
        return
    changes = np.flatnonzero(np.diff(segments[used])) + 1
    assert set(changes) == set(starts) - {0}
    assert (positions[starts] == 0).all()


def test_rows_keep_a_fixed_slot_for_the_corpus(books: Path, tasks: dict, weights: dict) -> None:
    config = DataConfig(
        row_length=200, weights=weights, corpora={"book": (str(books / "*"),)}, corpus_share=0.3
    )
    rows = Rows(config, tasks, TOKENIZER)
    assert rows.components[-1] == "book"
    for index in range(20):
        row = rows[index]
        is_corpus = np.asarray(row.tasks_BT) == len(rows.components) - 1
        assert is_corpus[140:].sum() >= 1 and not is_corpus[:140].any()
        assert (np.asarray(row.examples_BT)[is_corpus] == -1).all()
        assert (np.asarray(row.weights_BT)[is_corpus] == 1).all()
    full = sum((np.asarray(rows[i].tasks_BT) == len(rows.components) - 1)[140:].all() for i in range(20))
    assert full >= 18


def test_bad_corpora_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="DataConfig.corpora = .*no such file"):
        open_corpus([str(tmp_path / "*.txt")], TOKENIZER, 64, 0)
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(InputError, match="hold no text"):
        open_corpus([str(tmp_path / "*.txt")], TOKENIZER, 64, 0)
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(InputError, match="holds 7 tokens, expected more than the 64"):
        Rows(DataConfig(row_length=64, corpora={"book": (str(tmp_path / "s*.txt"),)}), {}, TOKENIZER)

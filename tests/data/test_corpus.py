"""Claims about corpora."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from icl.data.config import DataConfig
from icl.data.corpus import Corpus, tokenize_documents
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


def test_documents_are_joined_with_the_start_token(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\r\ntwo")
    (tmp_path / "b.txt").write_text("three")
    tokens = tokenize_documents([str(tmp_path / "*.txt"), str(tmp_path / "b.txt")], TOKENIZER).tolist()
    start = [TOKENIZER.start_id]
    assert tokens == start + list(b"one\ntwo") + start + list(b"three") + start


@pytest.mark.parametrize("positions", [7, 64, 100])
def test_an_epoch_predicts_every_token_once(books: Path, positions: int) -> None:
    tokens = tokenize_documents([str(books / "*")], TOKENIZER)
    numbered = np.arange(len(tokens), dtype=np.int32)
    corpus = Corpus(numbered, positions, seed=3)
    for epoch in range(2):
        start = epoch * corpus.num_blocks
        targets = np.concatenate([corpus.block(start + i)[1:] for i in range(corpus.num_blocks)])
        assert sorted(targets.tolist()) == list(range(1, len(tokens)))


def test_epochs_and_seeds_have_another_order(books: Path) -> None:
    tokens = tokenize_documents([str(books / "*")], TOKENIZER)
    one, two = Corpus(tokens, 50, 0), Corpus(tokens, 50, 1)
    orders = [
        [corpus.block(start + i).tobytes() for i in range(one.num_blocks)]
        for corpus, start in ((one, 0), (one, one.num_blocks), (two, 0))
    ]
    assert orders[0] != orders[1] and orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])


def test_long_texts_are_tokenized_in_pieces_without_loss(tmp_path: Path) -> None:
    text = "a line of text\n" * 20_000
    (tmp_path / "long.txt").write_text(text)
    assert TOKENIZER.decode(tokenize_documents([str(tmp_path / "long.txt")], TOKENIZER)) == text


@pytest.mark.parametrize("mask", [True, False])
def test_documents_are_segments_when_masked(books: Path, mask: bool) -> None:
    config = DataConfig(row_length=1500, corpus=(str(books / "*"),), mask_segments=mask)
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
    config = DataConfig(row_length=200, weights=weights, corpus=(str(books / "*"),), corpus_share=0.3)
    rows = Rows(config, tasks, TOKENIZER)
    assert rows.components[-1] == "corpus"
    for index in range(20):
        row = rows[index]
        is_corpus = np.asarray(row.tasks_BT) == len(rows.components) - 1
        assert is_corpus[140:].sum() >= 1 and not is_corpus[:140].any()
        assert (np.asarray(row.examples_BT)[is_corpus] == -1).all()
        assert (np.asarray(row.weights_BT)[is_corpus] == 1).all()
    full = sum((np.asarray(rows[i].tasks_BT) == len(rows.components) - 1)[140:].all() for i in range(20))
    assert full >= 18


def test_bad_corpora_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="DataConfig.corpus = .*no such file"):
        tokenize_documents([str(tmp_path / "*.txt")], TOKENIZER)
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(InputError, match="hold no text"):
        tokenize_documents([str(tmp_path / "*.txt")], TOKENIZER)
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(InputError, match="holds 8 tokens, expected more than the 64"):
        Rows(DataConfig(row_length=64, corpus=(str(tmp_path / "*.txt"),)), {}, TOKENIZER)

"""Claims about tokenizers, and about the tool that trains them."""

import gzip
import io
import json
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from icl.data.tokenizer import (
    ByteTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    escape,
    load_tokenizer,
    tokenizer_from_json,
)
from icl.errors import InputError
from tools.train_tokenizer import draw_lines, find_inputs, main, train

WORDS = [
    a + b + c for a in ("ba", "so", "kri") for b in ("lan", "mo", "", "tex") for c in ("ter", "zy", "dum", "")
]
LINES = [" ".join(WORDS[(7 * i + i * j * j) % len(WORDS)] for j in range(6)) for i in range(200)]
LINES += [f"the cat {i} sat on the mat -> the hat, {i * i} times; été ▁ naïve" for i in range(60)]
TEXT = st.text(st.characters(codec="utf-8"))


def trained(model_type: str) -> Tokenizer:
    return SentencePieceTokenizer(train(LINES, 330, model_type))


TOKENIZERS: dict[str, Tokenizer] = {
    "bytes": ByteTokenizer(),
    "unigram": trained("unigram"),
    "bpe": trained("bpe"),
}
every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


@every_tokenizer
@settings(max_examples=150, deadline=None)
@given(text=TEXT | st.text("\u2581\ue000 \n\r\t\x000a1<>/sé\U0001f600\ufeff"))
@example("▁ ▁▁\ue000\ue0001 \ue0000")
@example("  two  spaces\n\n \n and <s> </s> <unk> <0x41> \x00\x1f\x7f\u2028 ")
def test_decode_undoes_encode_for_every_string(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.start_id not in ids and tokenizer.pad_id not in ids


@every_tokenizer
def test_a_lone_surrogate_is_bad_input(name: str) -> None:
    with pytest.raises(InputError, match=r"lone surrogate \(U\+D800 at 1\)"):
        TOKENIZERS[name].encode("a\ud800b")


@every_tokenizer
def test_special_tokens_have_no_text(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = [tokenizer.start_id, *tokenizer.encode("cat"), tokenizer.pad_id, *tokenizer.encode(" sat")]
    assert tokenizer.decode(ids) == "cat sat"


@every_tokenizer
def test_every_id_decodes(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert isinstance(tokenizer.decode(range(tokenizer.vocab_size)), str)


@every_tokenizer
@settings(max_examples=100, deadline=None)
@given(text=TEXT | st.text("\u2581\ue000 \n\r\t\x000a1<>/s\u00e9\U0001f600\ufeff"))
@example("\u2581 \u2581\u2581\ue000\ue0001 \ue0000")
@example("  two  spaces\n\n \n and <s> </s> <unk> <0x41> \x00\x7f\u2028 ")
def test_the_bytes_of_the_tokens_are_those_of_the_text(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    joined = b"".join(map(tokenizer.token_bytes, tokenizer.encode(text)))
    assert joined == (text if name == "bytes" else escape(text)).encode()


@every_tokenizer
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_tokens_decode_to_their_bytes(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=12))
    joined = b"".join(map(tokenizer.token_bytes, ids))
    try:
        text = joined.decode()
    except UnicodeDecodeError:  # where a character is broken, how many U+FFFD stand for it is not settled
        return
    assert tokenizer.decode(ids) == text


@every_tokenizer
def test_special_tokens_have_no_bytes(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert tokenizer.token_bytes(tokenizer.start_id) == tokenizer.token_bytes(tokenizer.pad_id) == b""
    assert sum(tokenizer.token_bytes(i) == b"\n" for i in range(tokenizer.vocab_size)) >= 1


@every_tokenizer
def test_json_holds_the_whole_tokenizer(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    again = tokenizer_from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert again.fingerprint == tokenizer.fingerprint
    assert (again.kind, again.vocab_size, again.start_id, again.pad_id) == (
        tokenizer.kind,
        tokenizer.vocab_size,
        tokenizer.start_id,
        tokenizer.pad_id,
    )
    assert again.encode(LINES[3]) == tokenizer.encode(LINES[3])


@pytest.mark.parametrize("name", ["unigram", "bpe"])
@settings(max_examples=60, deadline=None)
@given(text=TEXT, rest=TEXT)
def test_a_newline_and_a_leading_space_are_safe_places_to_cut(name: str, text: str, rest: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert tokenizer.encode(text + "\n" + rest) == tokenizer.encode(text + "\n") + tokenizer.encode(rest)


def test_sentencepiece_has_longer_tokens_than_bytes() -> None:
    assert len(TOKENIZERS["unigram"].encode(LINES[7])) < len(LINES[7]) / 2


def test_wrong_tokenizers_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.model"
    broken.write_bytes(b"no model")
    with pytest.raises(InputError, match=r"broken\.model: not a SentencePiece model"):
        load_tokenizer(str(broken))
    with pytest.raises(InputError, match="none.model.*expected 'bytes' or the path"):
        load_tokenizer(str(tmp_path / "none.model"))
    with pytest.raises(InputError, match="kind 'words'"):
        tokenizer_from_json({"kind": "words"})
    with pytest.raises(InputError, match="base64"):
        tokenizer_from_json({"kind": "sentencepiece", "model": "#"})


def test_a_model_that_changes_text_is_refused() -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(LINES), model_writer=model, vocab_size=60, pad_id=3, minloglevel=2
    )
    with pytest.raises(InputError, match="expected a lossless model"):
        SentencePieceTokenizer(model.getvalue())


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt.gz"
    path.write_bytes(gzip.compress("\n".join(LINES).encode()))
    return path


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_training_twice_gives_the_same_bytes(book: Path, tmp_path: Path, model_type: str) -> None:
    models = [tmp_path / f"{i}.model" for i in range(2)]
    for model in models:
        arguments = [str(book), "--output", str(model), "--vocab_size", "330", "--model_type", model_type]
        assert main(arguments) == 0
    assert models[0].read_bytes() == models[1].read_bytes()
    assert load_tokenizer(str(models[0])).vocab_size == 330


def test_task_files_are_read_as_prompts_write_them(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"input": "cold", "output": "hot"}\n')
    assert texts(path) == ["cold -> hot"]


def texts(*inputs: object, exclude: tuple[str, ...] = ()) -> list[str]:
    found = find_inputs([str(each) for each in inputs], exclude)
    return [text for each in found for text in each.documents()]


def test_inputs_are_files_of_any_kind_folders_and_fields(tmp_path: Path) -> None:
    (tmp_path / "web.jsonl").write_text('{"text": "one\\ntwo", "body": "three"}\n')
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt.gz").write_bytes(gzip.compress(b"four"))
    (tmp_path / "task.json").write_text('[{"input": "cold", "output": "hot"}]')
    assert texts(tmp_path / "web.jsonl", tmp_path / "books") == ["one\ntwo", "four"]
    assert texts(f"{tmp_path}/web.jsonl#body", tmp_path / "*.json*") == ["three", "cold -> hot", "one\ntwo"]
    assert texts(tmp_path / "books" / "*", tmp_path / "books") == ["four"]
    assert texts(tmp_path / "*.json*", exclude=("task",)) == ["one\ntwo"]


@given(st.lists(st.text("ab", min_size=1, max_size=9), min_size=1, max_size=60), st.integers(9, 200))
def test_lines_are_drawn_evenly_up_to_a_number_of_characters(lines: list[str], most: int) -> None:
    drawn, share = draw_lines(lines, most)
    assert (drawn, share) == draw_lines(iter(lines), most)
    assert sum(map(len, drawn)) <= most
    rest = iter(lines)
    assert all(line in rest for line in drawn)
    if sum(map(len, lines)) <= most:
        assert drawn == lines and share == 1


def test_lines_of_every_part_are_drawn() -> None:
    drawn, share = draw_lines((f"{i % 10}{i:05d}" for i in range(20_000)), 12_000)
    assert share == 1 / 16 and 900 < len(drawn) < 2000
    counts = [sum(line.startswith(str(part)) for line in drawn) for part in range(10)]
    assert min(counts) > 60


def test_bad_input_is_one_line_and_writes_nothing(
    book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there.model"
    there.write_bytes(b"precious")
    (tmp_path / "empty.txt").write_text("\n\n")
    for arguments, message in (
        ([str(book), "--output", str(there)], "exists already; add --overwrite"),
        ([str(book), "--output", str(tmp_path)], "expected a file in a folder that exists"),
        (
            [str(book), "--output", str(tmp_path / "no" / "a.model")],
            "expected a file in a folder that exists",
        ),
        ([str(tmp_path / "none.txt"), "--output", str(tmp_path / "a.model")], "no such file"),
        ([str(tmp_path / "empty.txt"), "--output", str(tmp_path / "a.model")], "hold no text"),
        ([str(book), "--output", str(tmp_path / "a.model"), "--vocab_size", "99"], "vocab_size = 99"),
        ([str(book), "--output", str(tmp_path / "a.model"), "--vocab_size", "9999"], "vocab_size = 9999"),
    ):
        assert main(arguments) == 2
        last = capsys.readouterr().err.strip().split("\n")[-1]
        assert message in last and last.startswith("train_tokenizer: ")
    assert there.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book.txt.gz", "empty.txt", "there.model"]

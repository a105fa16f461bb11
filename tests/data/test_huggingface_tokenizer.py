"""Hugging Face tokenizers: what stands before a text, what a token adds to it, and all of it in JSON."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.data.huggingface_tokenizer import HuggingFaceTokenizer
from icl.data.tokenizer import Tokenizer, tokenizer_from_json
from icl.errors import InputError
from icl.evaluation.prompts import encode, encode_option
from icl.evaluation.stops import stop_transitions
from tests.interop.tokenizers_for_tests import gpt2_tokenizer, llama_tokenizer

GPT2: Tokenizer = HuggingFaceTokenizer(gpt2_tokenizer(), start_id=0, end_ids=(0,))
LLAMA: Tokenizer = HuggingFaceTokenizer(llama_tokenizer(), start_id=1, end_ids=(2,), config='{"a": 1}')
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(deadline=None)
@given(TEXT)
def test_the_bytes_of_tokens_make_the_text(text: str) -> None:
    assert b"".join(map(GPT2.token_bytes, GPT2.encode(text))) == text.encode()
    assert GPT2.decode(GPT2.encode(text)) == GPT2.continuation(GPT2.encode(text)) == text
    shown = text.replace("\u2581", " ")
    added = LLAMA.continuation(LLAMA.encode(text))
    assert added == (" " + shown if text else "")  # the normalizer's space stands before a text
    assert LLAMA.decode(LLAMA.encode(text)) == shown


def test_only_the_post_processor_puts_a_token_before_a_text() -> None:
    assert GPT2.prompt_start == () and LLAMA.prompt_start == (1,)
    prompt, answer = "Q: What is 48 plus 76?\n\nA:", " 124"
    plain, started = (encode(tokenizer, prompt, answer, "\n\n") for tokenizer in (GPT2, LLAMA))
    assert plain.prompt == GPT2.encode(prompt) and plain.full[: plain.gold_start] == plain.prompt
    assert started.prompt == [1, *LLAMA.encode(prompt)] and started.prompt.count(1) == 1
    assert GPT2.decode(plain.gold) == answer + "\n\n"
    assert LLAMA.continuation(started.gold).endswith(answer + "\n\n")  # its tokens may cross the seam


def test_a_text_of_which_all_is_scored_is_asked_after_the_start_token() -> None:
    for tokens in (encode(GPT2, "", "words", "\n"), encode_option(GPT2, "", "words", "")):
        assert tokens.prompt == [0] and tokens.full[0] == 0 and tokens.gold_start == 1
    merged = encode(GPT2, "mo", "re", "")
    assert merged.gold_start >= 1 and merged.full[-len(GPT2.encode("more")) :] == GPT2.encode("more")


def test_special_tokens_add_no_text_and_the_end_stops_one() -> None:
    assert GPT2.token_bytes(0) == LLAMA.token_bytes(1) == b""
    assert GPT2.encode("a<|endoftext|>b").count(0) == 1
    table = stop_transitions(LLAMA, "\n\n", vocab_size=LLAMA.vocab_size + 8)
    assert table.shape[1] == LLAMA.vocab_size + 8
    assert (table[:, 2] == len(table) - 1).all() and table[0, 1] == 0


@pytest.mark.parametrize("tokenizer", [GPT2, LLAMA])
def test_json_holds_all_of_it(tokenizer: HuggingFaceTokenizer) -> None:
    back = tokenizer_from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert isinstance(back, HuggingFaceTokenizer)
    assert back.files == tokenizer.files and back.fingerprint == tokenizer.fingerprint
    assert (back.start_id, back.end_ids, back.pad_id) == (
        tokenizer.start_id,
        tokenizer.end_ids,
        tokenizer.pad_id,
    )


def test_damaged_json_and_lone_surrogates_are_refused() -> None:
    good = GPT2.to_json()
    for name, value in (
        ("model", "?"),
        ("model", "AAAA"),
        ("end_ids", ""),
        ("start_id", "x"),
        ("pad_id", "999"),
    ):
        with pytest.raises(InputError, match="tokenizer description"):
            tokenizer_from_json(good | {name: value})
    with pytest.raises(InputError, match="lone surrogate"):
        GPT2.encode("a\ud800")

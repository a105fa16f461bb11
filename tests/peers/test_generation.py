"""Decoding from our KV cache gives the tokens that `generate` of transformers gives, greedy and by beam.

A hundred random prompts a model. Where tokens differ, the two candidates must lie within 1e-5 of each other.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from icl import model
from icl.interop.huggingface import open_folder
from tests.peers.test_transformers import SHAPES, make_folder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)  # faster for models so small

PROMPTS, NEW, LONGEST, TIE = 100, 16, 24, 1e-5
MODELS = ("gpt2", "pythia", "llama, grouped heads, tied", "mistral, window")


class Both:
    """A folder as our model and as theirs, with random prompts and a token that often ends their texts."""

    def __init__(self, folder: Path, shape: str) -> None:
        self.theirs = make_folder(folder, *SHAPES[shape])
        opened = open_folder(folder)
        self.config, self.params = opened.config, opened.restore()
        rng = np.random.default_rng(1)
        lengths = rng.integers(1, LONGEST + 1, PROMPTS)
        self.prompts = [rng.integers(0, self.config.vocab_size, length).tolist() for length in lengths]
        self.end_id = self._common_token()

    def _common_token(self) -> int:
        """The most frequent token of greedy texts: some end by it, and others go on to the budget."""
        free = self.ours("greedy", end_id=None)
        return int(np.bincount(np.concatenate(free)).argmax())

    def ours(self, how: str, *, end_id: int | None, penalty: float = 1.0) -> list[Any]:
        tokens_BT = np.zeros((PROMPTS, LONGEST), np.int32)
        for row, prompt in enumerate(self.prompts):
            tokens_BT[row, : len(prompt)] = prompt
        counts_B = jnp.asarray([len(prompt) for prompt in self.prompts])
        cache = model.init_cache(self.config, PROMPTS, LONGEST + NEW)
        last_BV, cache = model.extend_to_last(
            self.config, self.params, cache, jnp.asarray(tokens_BT), counts_B
        )
        transitions = np.array([[0], [1]], np.int32).repeat(self.config.vocab_size, axis=1)
        if end_id is not None:
            transitions[:, end_id] = 1
        common: dict[str, Any] = {
            "max_new_tokens": NEW,
            "transitions_SV": transitions,
            "end_id": end_id or 0,
        }
        if how == "greedy":
            _, found = model.greedy(self.config, self.params, cache, last_BV, **common)
        else:
            found = model.beam_search(
                self.config,
                self.params,
                cache,
                last_BV,
                width=4,
                length_penalty=penalty,
                length_rule="hf",
                **common,
            ).tokens_BN
        return [self._until_end(row, end_id) for row in np.asarray(found).tolist()]

    def of_transformers(self, how: str, *, penalty: float = 1.0) -> Iterator[list[int]]:
        options: dict[str, Any] = {"num_beams": 1}
        if how == "beam":
            options = {"num_beams": 4, "length_penalty": penalty, "early_stopping": "never"}
        for prompt in self.prompts:
            with torch.no_grad():
                found = self.theirs.generate(
                    torch.tensor([prompt]),
                    attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                    max_new_tokens=NEW,
                    do_sample=False,
                    eos_token_id=self.end_id,
                    pad_token_id=self.end_id,
                    **options,
                )
            yield self._until_end(found[0, len(prompt) :].tolist(), self.end_id)

    def log_likelihood(self, prompt: list[int], text: list[int]) -> float:
        """Of a text after a prompt, by their model."""
        with torch.no_grad():
            logits = self.theirs(torch.tensor([prompt + text])).logits[0].double()
        of_next = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]
        return float(of_next[torch.arange(len(text)), torch.tensor(text)].sum())

    @staticmethod
    def _until_end(tokens: list[int], end_id: int | None) -> list[int]:
        return tokens[: tokens.index(end_id) + 1] if end_id in tokens else tokens


@pytest.fixture(params=MODELS, scope="module")
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(tmp_path_factory.mktemp("model"), request.param)


def test_greedy_texts_are_the_same_token_for_token(both: Both) -> None:
    ours, theirs = both.ours("greedy", end_id=both.end_id), list(both.of_transformers("greedy"))
    assert any(len(text) < NEW for text in theirs) and any(len(text) == NEW for text in theirs)
    differing = 0
    for prompt, mine, other in zip(both.prompts, ours, theirs, strict=True):
        if mine != other:
            at = next(i for i, pair in enumerate(zip(mine, other, strict=False)) if pair[0] != pair[1])
            first, second = (both.log_likelihood(prompt, text[: at + 1]) for text in (mine, other))
            assert abs(first - second) < TIE, (prompt, mine, other)
            differing += 1
    assert differing <= PROMPTS / 20


@pytest.mark.parametrize("penalty", [0.6, 1.0])
def test_beam_search_gives_the_same_token_for_token(both: Both, penalty: float) -> None:
    ours = both.ours("beam", end_id=both.end_id, penalty=penalty)
    theirs = list(both.of_transformers("beam", penalty=penalty))
    greedy = both.ours("greedy", end_id=both.end_id)
    assert sum(mine != plain for mine, plain in zip(theirs, greedy, strict=True)) > PROMPTS / 10
    differing = 0
    for prompt, mine, other in zip(both.prompts, ours, theirs, strict=True):
        if mine != other:
            scores = [both.log_likelihood(prompt, text) / len(text) ** penalty for text in (mine, other)]
            assert abs(scores[0] - scores[1]) < TIE, (prompt, mine, other, scores)
            differing += 1
    assert differing <= PROMPTS / 20

"""What is shown of held-out episodes is what the model says of them."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from icl.data.batch import Batch, empty_row
from icl.data.loader import stack
from icl.data.rows import Rows
from icl.training import loss
from icl.training.curve_figure import curve_figure
from icl.training.held_out import HeldOutRows, _sample
from icl.training.step import score
from tests.training.small import one_device_setup

SETUP = one_device_setup(train={"eval_rows": 12})
TOKENIZER = SETUP.tokenizer
PARAMS = SETUP.init_state().params
LENGTH = SETUP.run.data.row_length


BEST = jax.jit(lambda batch: score(SETUP.model, PARAMS, batch).best_BT)


def row_of(tokens: list[int], answer: int) -> Batch:
    """A row of one segment, whose last `answer` targets are those of example 3."""
    row, count = empty_row(LENGTH, TOKENIZER.pad_id), len(tokens) - 1
    np.asarray(row.inputs_BT)[:count], np.asarray(row.targets_BT)[:count] = tokens[:-1], tokens[1:]
    np.asarray(row.segments_BT)[:count] = 1
    np.asarray(row.positions_BT)[:count] = np.arange(count)
    np.asarray(row.examples_BT)[count - answer : count] = 3
    return row


def greedy(tokens: list[int], count: int) -> list[int]:
    """Tokens that follow, the likeliest one after another, each from the whole text before it."""
    for _ in range(count):
        tokens = [*tokens, int(BEST(stack([row_of([*tokens, 0], 1)]))[0, len(tokens) - 1])]
    return tokens[-count:]


@pytest.mark.parametrize("wrong", [None, 0, 1, 3])
def test_a_samples_answer_is_how_greedy_decoding_begins(wrong: int | None) -> None:
    """Gold answers that differ from the greedy one in one place, though the row holds the gold ones."""
    prompt = [TOKENIZER.start_id, *TOKENIZER.encode("ab>cd")]
    said = greedy(prompt, 4)
    gold = [(token + (place == wrong)) % 256 for place, token in enumerate(said)]
    row = row_of([*prompt, *gold], 4)
    sample = _sample(TOKENIZER, row, np.asarray(BEST(stack([row]))[0]), "without")
    assert sample is not None and sample.is_right == (wrong is None)
    assert sample.answer == TOKENIZER.decode(said if wrong is None else said[: wrong + 1])
    assert (sample.prompt, sample.gold) == ("ab>cd", TOKENIZER.decode(gold))


def test_a_samples_prompt_is_the_episode_up_to_its_last_answer() -> None:
    found = HeldOutRows(SETUP).measure(PARAMS).samples
    for number, task in enumerate(("cipher", "word_label")):
        for sample, instruction in zip(found[task], (False, True), strict=True):
            rows = Rows(SETUP.run.data, SETUP.tasks, TOKENIZER, "held_out", instruction=instruction)
            row = rows[number]
            tokens = [int(np.asarray(row.inputs_BT)[0]), *np.asarray(row.targets_BT).tolist()]
            text = TOKENIZER.decode(tokens)
            k = int(np.max(row.examples_BT))
            assert text == sample.prompt + sample.gold and sample.gold.endswith("\n")
            assert sample.prompt.count("\n") == k + instruction
            assert sample.title.startswith(f"K = {k}, with{'' if instruction else 'out'} instruction;")


def test_a_model_that_knows_the_answers_is_shown_right(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = HeldOutRows(SETUP)
    (batch, *_) = rows._batches["without"]

    def oracle(*_: object) -> jax.Array:
        return 50.0 * jax.nn.one_hot(np.asarray(batch.targets_BT).reshape(-1), SETUP.model.vocab_size)

    monkeypatch.setattr(loss, "_logits", oracle)
    found = rows.measure(PARAMS)
    for task, (without, _) in found.samples.items():
        assert without.is_right and without.answer == without.gold, task


def test_tokens_that_the_tokenizer_does_not_have_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vocabulary of a model may be padded."""
    setup = one_device_setup(model={"vocab_size": 300}, train={"eval_rows": 4})
    monkeypatch.setattr(
        loss, "_logits", lambda how, hidden_ND, *_: jax.nn.one_hot(hidden_ND[:, 0] * 0 + 299, 300)
    )
    found = HeldOutRows(setup).measure(setup.init_state().params)
    assert {sample.answer for of in found.samples.values() for sample in of} == {""}


@pytest.mark.parametrize("tasks", [0, 1, 5, 40])
def test_the_curve_can_be_drawn_of_any_number_of_tasks(tasks: int) -> None:
    score_K = np.array([0.1, np.nan, 0.5], np.float32)
    by_task = {f"task $_{i}": {"exact_match": score_K} for i in range(tasks)}
    image = Image.open(io.BytesIO(curve_figure({"without": by_task, "with_instruction": by_task})))
    image.load()
    assert image.size[0] > 1000 and image.format == "PNG"

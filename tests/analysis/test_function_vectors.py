"""Function vectors of a model in which one head, written by hand, carries what the prompts have in common."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icl.analysis.function_vectors import (
    Prompts,
    answer_probabilities,
    draw_prompts,
    effect_of_vector,
    function_vector,
    indirect_effects,
    mean_last_outputs,
    top_heads,
)
from icl.analysis.hooks import Edit, Site, add, only, run_with_hooks
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.model import ModelConfig, abstract_params
from icl.tasks import FAMILIES

pytestmark = pytest.mark.extended

VOCAB, ANSWER = 20, 7
CONFIG = ModelConfig(
    vocab_size=VOCAB,
    max_length=16,
    num_layers=2,
    embed_dim=VOCAB + 4,
    num_heads=2,
    head_dim=VOCAB,
    mlp_dim=4,
    norm="rms",
    qkv_bias=False,
    attention_out_bias=False,
    mlp_bias=False,
    positions="rotary",
)
CARRIER = (0, 1)


def carrier_params() -> Any:
    """One head attends equally to all tokens and says what it reads, those above 4 only; all else is zero."""
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), abstract_params(CONFIG))
    params["embedding"]["tokens"] = jnp.eye(VOCAB, VOCAB + 4)
    for norm in (params["layers"]["attention_norm"], params["layers"]["mlp_norm"], params["final_norm"]):
        norm["scale"] = jnp.ones_like(norm["scale"])
    attention = params["layers"]["attention"]
    second = slice(VOCAB, 2 * VOCAB)
    labels = jnp.diag((jnp.arange(VOCAB) > 4).astype(jnp.float32))
    attention["value"]["kernel"] = attention["value"]["kernel"].at[0, :VOCAB, second].set(labels)
    attention["out"]["kernel"] = attention["out"]["kernel"].at[0, second, :VOCAB].set(3.0 * jnp.eye(VOCAB))
    return params


def prompts(labels: np.ndarray) -> Prompts:
    """Inputs 1 to 4, each followed by a label [prompts, 3], and a query without one; the answer is ANSWER."""
    count, shots = labels.shape
    rng = np.random.default_rng(0)
    pairs_BK2 = np.stack([rng.integers(1, 5, (count, shots)), labels], axis=-1)
    rows = np.concatenate([np.zeros((count, 1)), pairs_BK2.reshape(count, -1), np.ones((count, 1))], axis=1)
    padded = np.pad(rows, ((0, 0), (0, 2)))
    return Prompts(padded.astype(np.int32), np.full(count, 2 * shots + 1), np.full(count, ANSWER, np.int32))


TOLD = prompts(np.full((8, 3), ANSWER))
UNTOLD = prompts(np.random.default_rng(1).integers(8, VOCAB, (8, 3)))
ALONE = prompts(np.zeros((8, 0), np.int64))


def test_the_head_that_carries_the_task_is_found_and_its_vector_does_the_task() -> None:
    params = carrier_params()
    means_LHK = mean_last_outputs(CONFIG, params, TOLD)
    effects_LH = indirect_effects(CONFIG, params, UNTOLD, means_LHK)
    assert top_heads(effects_LH, 1) == [CARRIER]
    assert effects_LH[CARRIER] > 0.3
    rest = effects_LH.copy()
    rest[CARRIER] = 0
    np.testing.assert_allclose(rest, 0, atol=1e-6)
    vector_D = function_vector(CONFIG, params, means_LHK, [CARRIER])
    found = effect_of_vector(CONFIG, params, ALONE, vector_D, layer=1)
    assert found.accuracy_before == 0
    assert found.accuracy_after == 1
    assert found.probability_after > found.probability_before + 0.3
    other = effect_of_vector(CONFIG, params, ALONE, function_vector(CONFIG, params, means_LHK, [(1, 0)]), 1)
    assert other.accuracy_after == 0
    np.testing.assert_allclose(other.probability_after, other.probability_before)


def test_a_heads_mean_is_what_it_puts_out_at_the_last_position() -> None:
    """Three of eight tokens are the label, and the norm of a one-hot vector is undone by its width."""
    means_LHK = mean_last_outputs(CONFIG, carrier_params(), TOLD)
    expected_K = np.zeros(VOCAB)
    expected_K[ANSWER] = 3 / 8 * (VOCAB + 4) ** 0.5
    np.testing.assert_allclose(means_LHK[CARRIER], expected_K, rtol=1e-3)
    np.testing.assert_array_equal(np.delete(np.asarray(means_LHK).reshape(4, -1), 1, axis=0), 0)


def random_model() -> tuple[ModelConfig, Any]:
    config = ModelConfig(
        vocab_size=VOCAB,
        max_length=16,
        num_layers=2,
        embed_dim=16,
        num_heads=2,
        residual="parallel",
        positions="rotary",
        conv_width=2,
    )
    rng = np.random.default_rng(3)
    return config, jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0.0, 0.4, leaf.shape), jnp.float32), abstract_params(config)
    )


def test_patching_prompts_with_their_own_mean_has_no_effect() -> None:
    """Of one prompt, many times, the mean is what each head puts out anyway."""
    config, params = random_model()
    one = Prompts(*(np.repeat(array[:1], 4, axis=0) for array in UNTOLD))
    effects_LH = indirect_effects(config, params, one, mean_last_outputs(config, params, one))
    np.testing.assert_allclose(effects_LH, 0, atol=1e-6)
    assert (
        np.abs(indirect_effects(config, params, UNTOLD, mean_last_outputs(config, params, TOLD))).min() > 1e-5
    )


def test_adding_the_vector_is_adding_to_the_heads() -> None:
    """In a parallel block nothing but the stream sees the heads: what they gain there is the vector."""
    config, params = random_model()
    means_LHK = mean_last_outputs(config, params, TOLD)
    heads = [(0, 0), (0, 1)]
    vector_D = function_vector(config, params, means_LHK, heads)
    at_last = jnp.asarray(np.arange(ALONE.inputs_BT.shape[1])[None] == ALONE.last_B[:, None])
    chosen = only(config, heads)[:, None, None, :, None] & at_last[None, :, :, None, None]
    edits: dict[Site, Edit] = {"heads": add(jnp.where(chosen, means_LHK[:, None, None], 0.0))}
    by_heads_B, _ = answer_probabilities(config, params, ALONE, edits)
    found = effect_of_vector(config, params, ALONE, vector_D, layer=1)
    np.testing.assert_allclose(found.probability_after, by_heads_B.mean(), rtol=1e-4)
    assert abs(found.probability_after - found.probability_before) > 1e-4


def test_padding_behind_a_prompt_changes_nothing() -> None:
    config, params = random_model()
    for other in (0, 5):
        inputs_BT = UNTOLD.inputs_BT.copy()
        inputs_BT[:, UNTOLD.last_B[0] + 1 :] = other
        changed = UNTOLD._replace(inputs_BT=inputs_BT)
        ours, theirs = (answer_probabilities(config, params, p)[0] for p in (changed, UNTOLD))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_the_answers_probability_is_that_of_the_whole_model() -> None:
    config, params = random_model()
    probability_B, _ = answer_probabilities(config, params, TOLD)
    inputs_BT = jnp.asarray(TOLD.inputs_BT[:, : TOLD.last_B[0] + 1])
    positions_BT = jnp.broadcast_to(jnp.arange(inputs_BT.shape[1])[None], inputs_BT.shape)
    hidden = run_with_hooks(config, params, inputs_BT, jnp.ones_like(positions_BT), positions_BT).hidden_BTD
    last_BV = hidden[:, -1] @ params["embedding"]["tokens"].T
    np.testing.assert_allclose(probability_B, jax.nn.softmax(last_BV)[:, ANSWER], rtol=1e-4)


def test_shuffled_prompts_have_the_same_words_in_other_places() -> None:
    (task,) = FAMILIES["cipher"]().build("cipher")
    tokenizer = ByteTokenizer()
    instance = task.instance("held_out", 0)
    gold, shuffled = (
        draw_prompts(task, instance, tokenizer, demonstrations=5, count=6, shuffled=on)
        for on in (False, True)
    )
    np.testing.assert_array_equal(gold.answers_B, shuffled.answers_B)
    for prompt, other, last in zip(gold.inputs_BT, shuffled.inputs_BT, gold.last_B, strict=True):
        lines, shuffled_lines = (tokenizer.decode(row[: last + 1]).split("\n") for row in (prompt, other))
        assert len(lines) == 6
        assert lines[-1] == shuffled_lines[-1]
        assert lines[-1].endswith(">")
        pairs, shuffled_pairs = ([line.split(">") for line in some[:-1]] for some in (lines, shuffled_lines))
        assert [given for given, _ in pairs] == [given for given, _ in shuffled_pairs]
        assert sorted(target for _, target in pairs) == sorted(target for _, target in shuffled_pairs)
        assert [target for _, target in pairs] != [target for _, target in shuffled_pairs]
        assert len({given for given, _ in pairs} | {lines[-1][:-1]}) == 6
    again = draw_prompts(task, instance, tokenizer, demonstrations=5, count=3)
    np.testing.assert_array_equal(again.answers_B, gold.answers_B[:3])


def test_what_cannot_be_is_refused() -> None:
    (task,) = FAMILIES["cipher"](letters=6, lengths=(1,), length_weights=()).build("cipher")
    instance = task.instance("held_out", 0)
    with pytest.raises(InputError, match="6 examples; expected at least 9"):
        draw_prompts(task, instance, ByteTokenizer(), demonstrations=8, count=1)
    with pytest.raises(InputError, match="1 demonstrations; expected 2 or more"):
        draw_prompts(task, instance, ByteTokenizer(), demonstrations=1, count=1, shuffled=True)
    config, params = random_model()
    with pytest.raises(InputError, match="layer 2: expected 0 to 1"):
        effect_of_vector(config, params, ALONE, jnp.zeros(16), layer=2)
    learned = dataclasses.replace(config, positions="learned", max_length=4)
    with pytest.raises(InputError, match="rows of 10 tokens: the model was made for 4"):
        answer_probabilities(learned, params, TOLD)


def test_queries_are_those_kept_apart_and_a_shared_space_is_no_answer(tmp_path: Path) -> None:
    """Of a pool in which the test part has outputs of its own."""
    path = tmp_path / "words.json"
    path.write_text(json.dumps([{"input": f"w{i}", "output": f"{i}x"} for i in range(60)]))
    (task,) = FAMILIES["files"](glob=str(path)).build("files")
    tokenizer = ByteTokenizer()
    instance = task.instance("held_out", 0)
    tested = {query.example.input for query in task.queries("held_out")}
    drawn = draw_prompts(task, instance, tokenizer, demonstrations=3, count=20)
    for row, last, answer in zip(drawn.inputs_BT, drawn.last_B, drawn.answers_B, strict=True):
        *shown, asked = tokenizer.decode(row[: last + 1]).split("\n")
        assert asked.endswith(" -> ")
        name = asked.removesuffix(" -> ")
        assert name in tested
        assert not tested & {line.split(" ->")[0] for line in shown}
        assert tokenizer.decode([int(answer)]) == name[1]

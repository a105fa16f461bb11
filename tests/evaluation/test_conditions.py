"""Labels, orders and formats change what they say they change, and nothing else."""

import collections
import dataclasses
from collections import Counter
from typing import Any

import pytest

from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.evaluation.conditions import ABSTRACT, is_defined, relabel
from icl.evaluation.config import Condition, EvalConfig
from icl.evaluation.formats import FORMATS, channel, channel_template, content_free, template_of, worded
from icl.evaluation.plan import Trial, make_plan, rebuild_prompt
from icl.evaluation.prompts import prompt_text
from icl.evaluation.records import Record
from icl.tasks import Example, Template
from icl.tasks.pool import PoolTask
from icl.tasks.task import Query
from tests.evaluation.toy import ToyTask, pairs

BYTES = ByteTokenizer()
LABELS = ("no", "yes")
CHANGES: tuple[Condition, ...] = ("random_labels", "flipped_labels", "abstract_labels")


def labelled(count: int) -> list[Example]:
    return [Example(f"w{i}", LABELS[i % 2], f"w{i}", LABELS) for i in range(count)]


def pool(examples: list[Example], **settings: Any) -> PoolTask:
    template = Template(separator="\nAnswer:", target_prefix=" ", delimiter="\n\n")
    return PoolTask("pool", template, examples, where="test", test_share=0.4, **settings)


def trials(task: PoolTask | ToyTask, **changes: Any) -> list[Trial]:
    config = EvalConfig(**{"ks": (0, 2, 6), "seeds": 2, "queries": 5, "instruction": (False,), **changes})
    return list(make_plan(config, {"family": (task,)}, BYTES, 4096).trials[task.name])


@pytest.mark.parametrize("condition", CHANGES)
def test_conditions_change_answers_and_no_inputs(condition: Condition) -> None:
    task = pool(labelled(60))
    gold, changed = (trials(task, conditions=(which,)) for which in ("gold", condition))
    for one, other in zip(gold, changed, strict=True):
        assert [e.input for e in one.demonstrations] == [e.input for e in other.demonstrations]
        assert one.query.example.input == other.query.example.input
        assert one.query.example.choices.index(one.query.example.target) == other.query.example.choices.index(
            other.query.example.target
        )


def test_flipped_labels_are_all_wrong_and_the_query_keeps_its_answer() -> None:
    for trial in trials(pool(labelled(60)), conditions=("flipped_labels",)):
        for example in trial.demonstrations:
            assert example.target == LABELS[1 - int(example.input[1:]) % 2]
        assert trial.query.example.target == LABELS[int(trial.query.example.input[1:]) % 2]


def test_random_labels_are_uniform_over_the_labels_and_do_not_follow_the_right_ones() -> None:
    asked = trials(pool(labelled(400)), conditions=("random_labels",), queries=100)
    cells = Counter(
        (example.target, int(example.input[1:]) % 2) for trial in asked for example in trial.demonstrations
    )
    assert sum(cells.values()) == 100 * 2 * 6
    assert all(240 < count < 360 for count in cells.values())  # 300 each; four standard errors are 60


def test_abstract_labels_rename_demonstrations_and_query_alike() -> None:
    for trial in trials(pool(labelled(60)), conditions=("abstract_labels",)):
        for example in (*trial.demonstrations, trial.query.example):
            assert example.target == ABSTRACT[int(example.input[1:]) % 2]
            assert example.choices == ABSTRACT[:2]


def test_without_a_set_of_labels_answers_come_from_other_examples() -> None:
    task = ToyTask(pairs(30))
    targets = {example.target for example in pairs(30)}
    query = next(task.queries("held_out"))
    shown = pairs(12)
    asked, wrong = relabel("flipped_labels", query, shown, (), 0)
    assert asked == query.example
    assert all(a.target != b.target and a.target in targets for a, b in zip(wrong, shown, strict=True))
    assert not is_defined("abstract_labels", ())
    with pytest.raises(InputError, match="'toy' has no set of labels"):
        trials(task, conditions=("abstract_labels",))
    assert len(trials(task, conditions=("gold", "abstract_labels"))) == len(trials(task))


@pytest.mark.parametrize("condition", CHANGES)
@pytest.mark.parametrize("labels", [LABELS, ()])
def test_changed_labels_of_k_are_the_first_of_those_for_more(
    condition: Condition, labels: tuple[str, ...]
) -> None:
    examples = labelled(20)
    if not labels:
        examples = [dataclasses.replace(example, choices=()) for example in examples]
    if not is_defined(condition, labels):
        return
    query = Query(ToyTask(examples).instance("held_out", 0), examples[0], "q")
    most = relabel(condition, query, examples, labels, 3)[1]
    for k in range(20):
        assert relabel(condition, query, examples[:k], labels, 3)[1] == most[:k]


def test_orders_show_the_same_demonstrations_and_the_first_order_is_the_drawn_one() -> None:
    asked = trials(pool(labelled(60)), orders=3)
    by_order: dict[int, list[Trial]] = {n: [t for t in asked if t.order == n] for n in range(3)}
    moved = 0
    for first, *others in zip(*by_order.values(), strict=True):
        assert first.shown(6) == first.demonstrations
        for other in others:
            for k in (0, 2, 6):
                assert sorted(other.shown(k), key=str) == sorted(first.shown(k), key=str)
            moved += other.shown(6) != first.shown(6)
    assert moved > 15  # of 20: one of 720 orders is the same


def test_a_fixed_set_has_the_same_orders_for_all_queries_and_prompts_are_rebuilt_in_them() -> None:
    asked = trials(pool(labelled(60)), orders=3, demonstrations="fixed")
    for seed in (0, 1):
        orders = [{t.shown(6) for t in asked if (t.seed, t.order) == (seed, order)} for order in range(3)]
        # A query that stands in the set is passed over, so there may be more sets than one, but few.
        assert all(len(found) < 5 for found in orders)
        outside = [t for t in asked if t.seed == seed and t.query.example not in t.demonstrations]
        common = collections.Counter(t.demonstrations for t in outside).most_common(1)[0][0]
        shown = {t.order: t.shown(6) for t in outside if t.demonstrations == common}
        assert len(set(shown.values())) == 3
        assert all(t.shown(6) == shown[t.order] for t in outside if t.demonstrations == common)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_asks_in_its_own_way_and_ends_as_the_task_does(name: str) -> None:
    own = Template(separator="", target_prefix=" ", delimiter="\n\n")
    example = Example("Question: why?\nAnswer:", "so")
    template, other = template_of(own, name), worded(example, name)
    assert other.input == "Question: why?"
    text = prompt_text(template, None, [other], other)
    assert text.count("\n\n") == 1 and not text.endswith(" ")
    assert worded(example, "default") is example and template_of(own, "default") is own


def test_an_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="no format 'haiku'; expected of: default, arrow"):
        EvalConfig(templates=("haiku",))


def test_an_input_without_content_still_asks_for_the_answer() -> None:
    assert content_free(Example("Question: why?\nAnswer:", "so")).input == "N/A\nAnswer:"
    assert content_free(Example("long text\n\nA:", "so")).input == "N/A\n\nA:"
    assert content_free(Example("w1", "so")).input == "N/A"


def test_the_channel_shows_labels_first() -> None:
    own = Template(input_prefix="Q: ", separator=">", target_prefix=" ", delimiter="\n")
    turned = [channel(example, own) for example in labelled(2)]
    text = prompt_text(channel_template(own), "say", turned[:1], turned[1])
    assert text == "say\nno\nQ: w0\n\n"
    assert turned[1].choices == ("no\nQ: w1", "yes\nQ: w1") and turned[1].ending == "\nQ: w1"


def test_every_variant_of_a_query_shows_equally_many_demonstrations() -> None:
    """What fits is decided for all formats, labels and instructions together."""
    examples = [
        dataclasses.replace(e, input=e.input + "x" * (7 * i % 11)) for i, e in enumerate(labelled(60))
    ]
    config = EvalConfig(
        ks=(0, 30),
        seeds=2,
        queries=8,
        conditions=("gold", "flipped_labels"),
        templates=("default", "input_output", "arrow"),
        option_rules=("channel",),
    )
    found = make_plan(config, {"pool": (pool(examples, instruction="say it"),)}, BYTES, 400).trials["pool"]
    by_query: dict[tuple[str, int], set[int]] = {}
    for trial in found:
        by_query.setdefault((trial.query.name, trial.seed), set()).add(trial.max_k)
        for k in (0, 30):
            assert all(len(option.full) <= 400 for option in trial.options(BYTES, k))
            assert all(len(option.full) <= 400 for option in trial.through_channel().options(BYTES, k))
    assert all(len(counts) == 1 and 5 < min(counts) < 30 for counts in by_query.values())


def test_a_task_may_have_settings_of_its_own() -> None:
    config = EvalConfig(ks=(0, 1), per_task={"po*": {"ks": (0, 3), "seeds": 1}, "pool": {"ks": (0, 5)}})
    assert config.of("pool").ks == (0, 5) and config.of("pool").seeds == 1
    assert config.of("toy") is config
    tasks = {"a": (pool(labelled(60)),), "b": (ToyTask(pairs(9)),)}
    plan = make_plan(dataclasses.replace(config, queries=3), tasks, BYTES, 4096)
    assert {trial.settings.ks for trial in plan.trials["pool"]} == {(0, 5)}
    assert plan.num_prompts == 3 * 1 * 2 * 1 + 3 * 5 * 2 * 2


@pytest.mark.parametrize(
    ("per_task", "message"),
    [
        ({"pool": {"shots": 3}}, r"per_task\['pool'\]: no setting 'shots' of a task; expected of: ks"),
        ({"pool": {"ks": (3, 1)}}, r"per_task\['pool'\]: EvalConfig.ks = \(3, 1\): expected"),
        ({"pool": {"bootstrap": 100}}, "no setting 'bootstrap' of a task"),
        ({"pol": {"ks": (1,)}}, "'pol' names none of: pool"),
    ],
)
def test_bad_settings_of_a_task_are_refused_by_name(per_task: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        trials(pool(labelled(60)), per_task=per_task)


def test_prompts_of_every_variant_follow_from_their_records() -> None:
    task = pool(labelled(60))
    asked = trials(
        task, conditions=("gold", *CHANGES), templates=("default", "question_answer"), orders=2, queries=2
    )
    for trial in asked:
        fields: dict[str, Any] = {field.name: None for field in dataclasses.fields(Record)}
        fields |= {"query": trial.query.name, "split": "held_out", "seed": trial.seed, "order": trial.order}
        fields |= {"condition": trial.condition, "template": trial.format, "instruction": False, "lost": 0}
        fields |= {"k_effective": 6, "demonstrations": "per_query"}
        assert rebuild_prompt(Record(**fields), task) == trial.prompt(6)

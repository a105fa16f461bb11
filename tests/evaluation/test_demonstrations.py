"""Which demonstrations a query gets depends on (task, seed, query) and on nothing else."""

import dataclasses
from typing import Any

import pytest

from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.evaluation.config import Demonstrations, EvalConfig
from icl.evaluation.demonstrations import draw
from icl.evaluation.plan import make_plan
from icl.tasks import Affine, Cipher, PositionMap, WordLabel, build_tasks
from tests.evaluation.toy import ToyTask, pairs

FAMILIES = build_tasks(
    {"cipher": Cipher(), "position_map": PositionMap(), "word_label": WordLabel(), "affine": Affine()}
)
CONFIG = EvalConfig(queries=6, seeds=2, ks=(0, 1, 4, 8))


@pytest.mark.parametrize("mode", ["per_query", "fixed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_demonstrations_for_k_are_the_first_of_those_for_more(family: str, mode: Demonstrations) -> None:
    (task,) = FAMILIES[family]
    query = next(task.queries("held_out"))
    most = draw(query, count=12, seed=1, demonstrations=mode)
    for k in range(12):
        assert draw(query, count=k, seed=1, demonstrations=mode) == most[:k]


@pytest.mark.parametrize("mode", ["per_query", "fixed"])
@pytest.mark.parametrize("family", ["cipher", "position_map"])
def test_a_query_never_shares_its_key_with_a_demonstration(family: str, mode: Demonstrations) -> None:
    (task,) = FAMILIES[family]
    for query, _ in zip(task.queries("held_out"), range(30), strict=False):
        shown = draw(query, count=16, seed=0, demonstrations=mode)
        assert query.example.key is not None
        assert query.example.key not in {example.key for example in shown}


def test_seeds_and_queries_have_demonstrations_of_their_own() -> None:
    queries = ToyTask(pairs(40)).queries("held_out")
    one, second = next(queries), next(queries)
    assert draw(one, count=8, seed=0) != draw(one, count=8, seed=1)
    assert draw(one, count=8, seed=0) != draw(second, count=8, seed=0)


def test_a_fixed_set_serves_all_queries_but_for_a_reserve_where_the_key_forbids() -> None:
    task = ToyTask(pairs(12))
    sets = [draw(query, count=4, seed=0, demonstrations="fixed") for query in task.queries("held_out")]
    common = max(sets, key=sets.count)
    assert sets.count(common) == 8  # all but the four queries that stand in it
    for query, shown in zip(task.queries("held_out"), sets, strict=True):
        kept = [example for example in common if example.key != query.example.key]
        assert [example for example in shown if example in common] == kept


@pytest.mark.parametrize("changes", [{"queries": 3}, {"batch_rows": 1}, {"ks": (0, 8)}, {"seeds": 1}])
def test_demonstrations_do_not_depend_on_limits_or_batches(changes: dict[str, Any]) -> None:
    def shown(config: EvalConfig) -> dict[tuple[str, int, bool], object]:
        plan = make_plan(config, FAMILIES, ByteTokenizer(), 256)
        trials = [trial for same in plan.trials.values() for trial in same]
        return {(t.query.name, t.seed, t.instructed): (t.demonstrations[:8], t.max_k) for t in trials}

    whole, part = shown(CONFIG), shown(dataclasses.replace(CONFIG, **changes))
    assert part.items() <= whole.items()


def test_more_demonstrations_than_there_are_is_bad_input() -> None:
    query = next(ToyTask(pairs(5), name="tiny").queries("held_out"))
    assert len(draw(query, count=4, seed=0)) == 4
    with pytest.raises(InputError, match="'tiny'.*4 demonstrations.*at least 5"):
        draw(query, count=5, seed=0)

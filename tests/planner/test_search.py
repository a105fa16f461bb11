"""The search, with the compiler replaced by one that says what it is told to."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.errors import InputError
from icl.parallel.chips import CHIPS
from icl.parallel.mesh import MeshConfig
from icl.planner import search as searching
from icl.planner.compiling import Layout, Plan, estimate_training, lay_out
from icl.planner.memory import SAFE_SHARE
from icl.planner.roofline import plan_roofline
from icl.planner.search import candidates, gin_lines, search, setting_text
from icl.planner.topology import Topology
from icl.progress import time_left
from icl.training.config import RunConfig
from tests.planner.plans import H100, V5E
from tests.training.small import small_run

RUN = small_run(train={"batch_tokens": 32 * 64}, data={"row_length": 64})


class Compiler:
    """Stands for the compiler: takes the estimate, and makes of its memory what `says` does."""

    def __init__(self, says: Callable[[Plan], Plan]) -> None:
        self.says = says
        self.compiled: list[Plan] = []
        self._layouts: dict[MeshConfig, Layout] = {}

    def __call__(self, run: RunConfig, topology: Topology, devices: Any) -> Plan:
        if run.mesh not in self._layouts:
            self._layouts[run.mesh] = lay_out(run, topology, devices)
        plan = self.says(estimate_training(run, topology, self._layouts[run.mesh]))
        self.compiled.append(plan)
        return plan


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler(lambda plan: plan)
    monkeypatch.setattr(searching, "plan_training", made)
    return made


def needing(plan: Plan, share: float) -> Plan:
    temporaries = int(share * plan.memory.capacity) - (plan.memory.total - plan.memory.temporaries)
    return dataclasses.replace(plan, memory=dataclasses.replace(plan.memory, temporaries=temporaries))


def with_memory(capacity: float) -> Topology:
    return dataclasses.replace(V5E, chip=dataclasses.replace(CHIPS["v5e"], memory=capacity))


def seconds(plan: Plan) -> float:
    time = plan_roofline(plan)
    assert time is not None
    return (time.least + time.most) / 2


def test_the_fastest_that_fits_is_first_and_compiled_in_the_order_of_the_estimates(
    compiler: Compiler,
) -> None:
    plans = search(RUN, V5E, jax.devices(), 3)
    assert len(plans) == len(compiler.compiled) == 3
    assert [seconds(plan) for plan in plans] == sorted(map(seconds, plans))
    everything = list(searching._estimates(RUN, V5E, jax.devices(), lambda _: None))
    assert len(everything) == len(list(candidates(RUN, V5E)))
    assert seconds(plans[0]) == min(map(seconds, everything))


def test_what_the_compiler_says_overrules_the_estimate(compiler: Compiler) -> None:
    """The first by shapes does not fit, the second only just: both fall behind the slower ones."""

    def says(plan: Plan) -> Plan:
        return needing(plan, (1.5, 0.9, 0.5, 0.5)[min(len(compiler.compiled), 3)])

    compiler.says = says
    plans = search(RUN, V5E, jax.devices(), 2)
    refused, unsafe, *safe = compiler.compiled
    assert plans == [*sorted(safe, key=seconds), unsafe, refused]
    assert len(safe) == 2


def test_what_was_compiled_corrects_the_estimates_of_the_rest(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shapes say that remat `none` takes nine tenths and the others six; half of that, says the compiler."""
    real = searching.estimate_training

    def estimate(run: RunConfig, topology: Topology, layout: Layout) -> Plan:
        return needing(real(run, topology, layout), 0.9 if run.model.remat == "none" else 0.6)

    monkeypatch.setattr(searching, "estimate_training", estimate)
    compiler.says = lambda plan: needing(plan, 0.45 if plan.run.model.remat == "none" else 0.3)
    run = small_run(model={"num_layers": 8, "embed_dim": 64}, train={"batch_tokens": 256 * 64})
    best, *_ = search(run, V5E, jax.devices(), 2)
    assert [plan.run.model.remat for plan in compiler.compiled] == ["names", "none"]
    assert best.run.model.remat == "none"


def test_a_search_gives_up_after_twice_as_many(compiler: Compiler) -> None:
    compiler.says = lambda plan: needing(plan, 2.0)
    plans = search(RUN, V5E, jax.devices(), 3)
    assert len(compiler.compiled) == 6 and not any(plan.memory.fits for plan in plans)


def test_what_cannot_fit_is_never_compiled(compiler: Compiler) -> None:
    run = small_run(model={"embed_dim": 256})
    topology = with_memory(8e6)
    said: list[str] = []
    search(run, topology, jax.devices(), 100, said.append)
    every = list(searching._estimates(run, topology, jax.devices(), lambda _: None))
    (summary,) = [text for text in said if "cannot fit" in text]
    pruned = int(summary.split()[3])
    assert pruned > 0 and len(compiler.compiled) == len(every) - pruned
    compiled = {setting_of(plan.run) for plan in compiler.compiled}
    state_alone = [plan for plan in every if plan.memory.parameters + plan.memory.optimizer > 8e6]
    assert state_alone and not compiled & {setting_of(plan.run) for plan in state_alone}
    assert compiled > {setting_of(plan.run) for plan in every if plan.memory.fits}


def test_where_nothing_can_fit_the_nearest_is_shown_uncompiled(compiler: Compiler) -> None:
    plans = search(RUN, with_memory(1000.0), jax.devices(), 2)
    assert not compiler.compiled and len(plans) == 2
    assert not plans[0].memory.fits and plans[0].memory.share <= plans[1].memory.share


def test_gpus_are_ranked_by_their_shapes(compiler: Compiler) -> None:
    plans = search(RUN, H100, jax.devices(), 4)
    assert not compiler.compiled and len(plans) == 4
    assert [seconds(plan) for plan in plans] == sorted(map(seconds, plans))
    assert all(plan.memory.share <= SAFE_SHARE for plan in plans)


def test_progress_counts_and_tells_the_time_left(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_SAY_EVERY", 0.0)
    said: list[str] = []
    search(RUN, V5E, jax.devices(), 2, said.append)
    assert any("1 of " in text and "meshes laid out, about " in text for text in said)
    first, second = [text for text in said if text.startswith("compiling ")]
    assert "number 1, 0 of 2 found" in first and "left" not in first
    assert "number 2, 1 of 2 found, about " in second and second.endswith(" left")


def test_the_time_left_is_that_of_what_was_done() -> None:
    assert time_left(100.0, 130.0, 3, 9) == ", about 60 s left"
    assert time_left(100.0, 130.0, 0, 9) == ""


@given(
    batch=st.sampled_from([(8, 0), (8, 1), (24, 0), (24, 12), (32, 4), (256, 0), (256, 4)]),
    sides=st.sampled_from([(1, 1), (2, 2), (2, 4), (4, 8), (3, 2)]),
    slices=st.integers(1, 3),
)
@settings(max_examples=60)
def test_candidates_divide_the_devices_the_batch_and_its_ramp(
    batch: tuple[int, int], sides: tuple[int, int], slices: int
) -> None:
    rows, ramp = batch
    changes = {"batch_tokens": rows * 64, "ramp_from": ramp * 64, "ramp_tokens": 10_000 if ramp else 0}
    chips = math.prod(sides) * slices
    run = small_run(model={"num_heads": 4}, train=changes)
    found = list(candidates(run, Topology("v5e", CHIPS["v5e"], chips, slices)))
    assert len({setting_of(candidate) for candidate in found}) == len(found)
    for candidate in found:
        data, fsdp, tensor, sequence = candidate.mesh.sizes(chips)
        assert data * fsdp * tensor * sequence == chips and candidate.model.num_heads % tensor == 0
        assert candidate.mesh.dcn_data == slices and data % slices == 0
        assert rows % (candidate.train.accumulation_steps * data * fsdp) == 0
        for stage in candidate.ramp.stages:
            assert stage.rows % (data * fsdp) == 0
        assert bool(candidate.train.ramp_from) == bool(ramp)


def setting_of(run: RunConfig) -> tuple[Any, ...]:
    return run.mesh, run.model.remat, run.train.accumulation_steps


def test_a_batch_that_divides_nowhere_is_refused() -> None:
    run = small_run(train={"batch_tokens": 3 * 64}, model={"num_heads": 1})
    with pytest.raises(InputError, match="--search: no mesh of 8 devices divides"):
        search(run, V5E, jax.devices())


def test_a_setting_is_told_in_a_line_and_as_gin() -> None:
    run = next(run for run in candidates(RUN, V5E) if run.mesh.fsdp == 4 and run.mesh.data == 2)
    plan = estimate_training(run, V5E, lay_out(run, V5E, jax.devices()))
    assert setting_text(plan) == "data 2 x fsdp 4, remat none, 1 microbatch(es)"
    assert gin_lines(run) == [
        "MeshConfig.data = 2",
        "MeshConfig.fsdp = 4",
        "MeshConfig.tensor = 1",
        "ModelConfig.remat = 'none'",
        "TrainConfig.accumulation_steps = 1",
    ]

import dataclasses
import json

import jax
import pytest

from icl.planner.compiling import Plan, plan_evaluation
from icl.planner.memory import Allocation
from icl.planner.report import plan_json, plan_text, ranking_text
from icl.planner.roofline import plan_roofline
from icl.progress import duration
from tests.planner.plans import H100, TRIPS, V5E, compiled_plan, estimated_plan
from tests.training.small import small_run

PIECES = (Allocation(3 * 2**30, "f32[805306368]"), Allocation(2**20, "bf16[524288]"))


def line(plan: Plan, start: str) -> str:
    (found,) = [line for line in plan_text(plan).splitlines() if line.strip().startswith(start)]
    return found


def too_large() -> Plan:
    return compiled_plan(temporaries=20 * 2**30, largest=PIECES)


def test_the_text_has_every_part_and_what_they_leave() -> None:
    plan = compiled_plan(temporaries=2**30, outputs=2048)
    text = plan_text(plan)
    assert f"{plan.params:,} parameters" in text
    assert line(plan, "temporaries").split() == ["temporaries", "1.00", "GiB"]
    assert line(plan, "code").split() == ["code", "4.00", "KiB"]
    assert line(plan, "outputs").split() == ["outputs", "2.00", "KiB"]
    for part in ("parameters", "optimizer", "inputs"):
        assert line(plan, part).split()[1] == f"{plan.memory.parts[part] / 1024:.2f}"
    assert line(plan, "headroom").split() == ["headroom", "15.00", "GiB"]
    assert line(plan, "a chip").endswith("of 16.00 GiB (6%): fits")
    assert "largest" not in text


def test_the_text_has_flops_attention_collectives_and_the_roofline() -> None:
    plan = dataclasses.replace(compiled_plan(), model_flops=4e9, attention_flops=1e9)
    time = plan_roofline(plan)
    assert time is not None
    assert line(plan, "model FLOPs").endswith("4e+09 a step over all chips, of which attention 25%")
    assert f"all-gather: {TRIPS} times, 1.50 KiB" in plan_text(plan)
    assert f"all-reduce: {TRIPS} times, 0.19 KiB" in plan_text(plan)
    assert f"{duration(time.least)} to {duration(time.most)} (roofline" in line(plan, "step")
    assert V5E.chip.source in plan_text(plan)
    assert f"{duration(plan.total_tokens / plan.tokens * time.most)}" in line(plan, "whole run")


def test_what_does_not_fit_is_told_with_its_largest_pieces() -> None:
    text = plan_text(too_large())
    assert "does not fit" in text and "headroom" in text
    assert text.index("3.00 GiB  f32[805306368]") < text.index("1.00 MiB  bf16[524288]")
    assert "step  " not in text and "whole run" not in text


def test_an_unsafe_fit_is_told_with_its_largest_pieces() -> None:
    text = plan_text(compiled_plan(temporaries=14 * 2**30, largest=PIECES))
    assert "fits, but above the 80% that are safe" in text and "3.00 GiB  f32[805306368]" in text


def test_an_estimate_says_that_it_is_one_and_names_no_code() -> None:
    plan = estimated_plan(H100)
    assert "estimated from shapes" in line(plan, "temporaries") and "from shapes" in line(plan, "step")
    assert "code " not in plan_text(plan) and "collectives" not in plan_text(plan)


def test_traffic_between_slices_is_told() -> None:
    plan = compiled_plan()
    plan = dataclasses.replace(plan, topology=dataclasses.replace(plan.topology, slices=2))
    assert "between slices: 0.19 KiB" in plan_text(plan) and "network" in plan_text(plan)
    assert "8 x v5e in 2 slices" in line(plan, "devices")


def test_an_evaluation_trains_nothing() -> None:
    run = small_run(mesh={"data": 8})
    plan = plan_evaluation(run, H100, jax.devices(), rows=8)
    assert "reads 8 prompts of 64 tokens" in line(plan, "run") and "microbatch" not in line(plan, "run")
    assert "whole run" not in plan_text(plan)
    assert plan_json(plan)["kind"] == "evaluation" and plan_json(plan)["bytes"]["optimizer"] == 0


def test_json_is_what_the_text_says_in_bytes_and_seconds() -> None:
    plan = compiled_plan(temporaries=2**30)
    found = json.loads(json.dumps(plan_json(plan)))
    sizes = found["bytes"]
    parts = ("parameters", "optimizer", "inputs", "temporaries", "code", "outputs")
    assert sizes["total"] == sum(sizes[part] for part in parts)
    assert sizes["headroom"] == sizes["capacity"] - sizes["total"]
    assert found["share"] == sizes["total"] / sizes["capacity"] and found["fits"] is True
    assert found["collectives"]["all-gather"] == {"count": TRIPS, "bytes": TRIPS * 512}
    seconds = found["step_seconds"]
    resources = ("compute", "memory", "transfer", "network")
    assert seconds["least"] == max(seconds[name] for name in resources)
    assert seconds["most"] == pytest.approx(sum(seconds[name] for name in resources))
    assert found["chip"]["source"] == V5E.chip.source and found["mesh"]["fsdp"] == 8
    assert "MeshConfig.fsdp = 8" in found["gin"]
    assert json.loads(json.dumps(plan_json(too_large())))["fits"] is False


def test_a_ranking_has_a_line_a_plan_and_the_first_as_gin() -> None:
    best, worst = compiled_plan(), too_large()
    first, second = ranking_text([best, worst]).splitlines()[1:3]
    assert first.startswith("1   fsdp 8 ") and first.endswith("us")
    assert second.startswith("2   fsdp 8 ") and second.endswith("does not fit")
    assert "  MeshConfig.fsdp = 8" in ranking_text([best, worst])
    assert "as gin" not in ranking_text([worst])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (1.04e-6, "1.04 us"),
        (0.0034, "3.4 ms"),
        (1.5, "1.5 s"),
        (119.0, "119 s"),
        (150.0, "2.5 min"),
        (9000.0, "2.5 h"),
        (1e7, "116 days"),
    ],
)
def test_durations_have_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text

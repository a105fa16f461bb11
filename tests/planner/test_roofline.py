"""Times against closed forms, at the peaks of a v5e: 197 TFLOP/s, 819 GB/s HBM, 200 GB/s links, 25 Gbit/s."""

import dataclasses

import pytest

from icl.planner.hlo import read_hlo
from icl.planner.roofline import Roofline, bytes_sent, model_flops_utilisation, plan_roofline
from icl.planner.slices import bytes_to_other_slices
from icl.planner.topology import parse_topology
from tests.planner.plans import GATHERED, H100, PROGRAM, TRIPS, compiled_plan, estimated_plan, run_on

LINK, HBM, PEAK, NETWORK = 200e9, 819e9, 197e12, 25e9 / 8


def test_a_ring_sends_all_but_its_own_part_once_and_twice_for_a_sum() -> None:
    gathered, summed = 4 * GATHERED * 7 / 8, 2 * 4 * 16 * 3 / 4
    assert bytes_sent(read_hlo(PROGRAM)) == TRIPS * (gathered + summed)


def test_what_goes_to_other_slices_is_counted_as_often_as_its_loop_runs() -> None:
    assert bytes_to_other_slices(read_hlo(PROGRAM).module) == TRIPS * 4 * 16
    alone = PROGRAM.replace("xla_megascale_runtime", "another_handler")
    assert bytes_to_other_slices(read_hlo(alone).module) == 0


def test_each_resource_takes_its_work_at_its_peak() -> None:
    plan = dataclasses.replace(compiled_plan(), model_flops=8.0, attention_flops=0.0)
    time = plan_roofline(plan)
    assert time is not None and not time.is_estimate
    assert time.compute == 2 * 4 * 8 * 2 / PEAK
    assert time.memory == 2 * (plan.memory.parameters + plan.memory.optimizer) / HBM
    assert time.transfer == pytest.approx(bytes_sent(read_hlo(PROGRAM)) / LINK)
    assert time.network == 0


def test_matmuls_are_at_least_the_models_own() -> None:
    plan = dataclasses.replace(compiled_plan(), model_flops=8e9)
    time = plan_roofline(plan)
    assert time is not None and time.compute == 1e9 / PEAK
    assert model_flops_utilisation(plan, time.compute) == pytest.approx(1)


def test_attention_in_a_kernel_is_added_to_what_the_program_shows() -> None:
    kernel = (
        '  %k = f32[4] custom-call(%x), custom_call_target="tpu_custom_call"\n  %u = f32[4,8] parameter(1)'
    )
    program = read_hlo(PROGRAM.replace("  %u = f32[4,8] parameter(1)", kernel))
    plan = dataclasses.replace(compiled_plan(), model_flops=0.0, attention_flops=8e9)
    with_kernel, without = plan_roofline(dataclasses.replace(plan, program=program)), plan_roofline(plan)
    assert with_kernel is not None and without is not None
    assert with_kernel.compute - without.compute == pytest.approx(1e9 / PEAK)


def test_slices_exchange_over_the_network() -> None:
    plan = compiled_plan()
    two = dataclasses.replace(plan, topology=dataclasses.replace(plan.topology, slices=2))
    time = plan_roofline(two)
    assert time is not None and time.network == TRIPS * 4 * 16 / NETWORK


def test_a_step_takes_the_longest_resource_or_the_sum() -> None:
    time = Roofline(compute=3.0, memory=1.0, transfer=4.0, network=2.0)
    assert (time.least, time.most) == (4.0, 10.0)


@pytest.mark.parametrize("parts", [1, 2])
def test_fsdp_by_shapes_gathers_twice_and_scatters_once_a_microbatch(parts: int) -> None:
    run = run_on(fsdp=8 // parts, data=parts)
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, accumulation_steps=parts))
    if parts == 2:  # 4 rows do not divide among 8 devices
        run = dataclasses.replace(run, train=dataclasses.replace(run.train, batch_tokens=16 * 64))
    plan = estimated_plan(run=run)
    time = plan_roofline(plan)
    fsdp = 8 // parts
    gathers = 3 * parts * plan.params * 4 * (fsdp - 1) / fsdp
    sums = 0 if parts == 1 else 2 * (1 / 2) * parts * 4 * plan.params / fsdp
    assert time is not None and time.is_estimate
    assert time.transfer == pytest.approx((gathers + sums) / LINK)
    assert time.compute == plan.model_flops / 8 / PEAK


def test_tensor_by_shapes_sums_activations_and_gathers_nothing() -> None:
    plan = estimated_plan(run=run_on(data=4, tensor=2))
    time = plan_roofline(plan)
    sums = 2 * (1 / 2) * 4 * 1 * (8 * 64 / 4) * 16 * 4
    gradients = 2 * (3 / 4) * 4 * plan.params / 2
    assert time is not None and time.transfer == pytest.approx((sums + gradients) / LINK)


def test_gpus_beyond_a_host_talk_over_its_network() -> None:
    plan = estimated_plan(H100)
    many = dataclasses.replace(plan, topology=dataclasses.replace(H100, num_chips=16))
    near, far = plan_roofline(plan), plan_roofline(many)
    assert near is not None and far is not None
    assert far.transfer / near.transfer == pytest.approx(450 / 50)


def test_a_cpu_has_no_roofline() -> None:
    assert plan_roofline(estimated_plan(parse_topology("cpu:8"))) is None

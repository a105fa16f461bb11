import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from icl.parallel.chips import CHIPS
from icl.planner.compiling import default_rows, lay_out, plan_evaluation
from icl.planner.memory import (
    Allocation,
    Memory,
    bytes_a_device,
    compiled_memory,
    largest_allocations,
    refused_memory,
)
from icl.planner.topology import parse_topology
from tests.planner.plans import V5E, estimated_plan, run_on
from tests.training.small import small_run

GIB = 2**30


def test_parameters_and_moments_are_what_one_device_holds() -> None:
    layout = lay_out(run_on(fsdp=4, tensor=2), V5E, jax.devices())
    state = layout.setup.abstract_state()

    def held(tree: object) -> int:
        arrays = [
            jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding) for leaf in jax.tree.leaves(tree)
        ]
        return sum(array.addressable_shards[0].data.nbytes for array in arrays)

    assert (layout.parameters, layout.moments) == (held(state.params), held(state.moments))


def test_the_parts_are_what_jax_says_of_the_compiled_step() -> None:
    """The CPU pads nothing, so arguments are the state and those arrays of the batch that are used."""
    layout = lay_out(run_on(fsdp=8), parse_topology("cpu:8"), jax.devices())
    setup = layout.setup
    state, batch = setup.abstract_state(), setup.abstract_batch()
    stats = setup.compile_train_step(state, batch).memory_analysis()
    memory = compiled_memory(8 * GIB, layout.parameters, layout.moments, stats, ())
    arguments = stats.argument_size_in_bytes
    used = arguments - bytes_a_device(state)
    assert 0 < used <= layout.batch and used % (64 * 4) == 0
    assert memory.parameters + memory.optimizer + memory.inputs == arguments
    new = stats.output_size_in_bytes - stats.alias_size_in_bytes
    assert memory.outputs == new < memory.parameters
    assert memory.total == arguments + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes + new
    assert memory.headroom == 8 * GIB - memory.total and memory.fits


def test_aliased_outputs_take_no_room() -> None:
    stats = SimpleNamespace(
        argument_size_in_bytes=100,
        temp_size_in_bytes=30,
        generated_code_size_in_bytes=7,
        output_size_in_bytes=95,
        alias_size_in_bytes=90,
    )
    memory = compiled_memory(150.0, 20, 40, stats, ())
    assert memory.parts == {
        "parameters": 20,
        "optimizer": 40,
        "inputs": 40,
        "temporaries": 30,
        "code": 7,
        "outputs": 5,
    }
    assert memory.total == 142 and memory.share == 142 / 150


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for"
        " HLO temporaries (15.88G) exceeds available HBM (15.75G). HLO module: jit_train_step.",
        "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 15.88G of 15.75G hbm.",
    ],
)
def test_what_the_compiler_refuses_does_not_fit_however_little_it_lacks(message: str) -> None:
    largest = (Allocation(GIB, "f32[268435456]"),)
    memory = refused_memory(16 * GIB, 2 * GIB, 4 * GIB, GIB, message, largest)
    assert memory is not None and not memory.fits
    assert memory.total == pytest.approx(15.88 * GIB, abs=1) and memory.capacity == 15.75 * GIB
    assert memory.temporaries == pytest.approx(8.88 * GIB, abs=1)
    assert memory.largest == largest
    assert not dataclasses.replace(memory, capacity=16 * GIB).fits


def test_other_errors_are_not_about_memory() -> None:
    assert refused_memory(1.0, 0, 0, 0, "INTERNAL: Mosaic failed to compile", ()) is None


def test_the_largest_allocations_are_those_of_hbm() -> None:
    report = """Memory Space: default (color=0)
Total bytes: 944597268992 (879.72GiB)
  cumulative_size;       size;       offset; used_by_n_values; shapes_list
  ------------------------------------------------------------
   64.00GiB(  6%);   64.00GiB;      1949696;                8; f32[262144,128], f32[33554432,32]
   64.00GiB(  6%);  512B;  68721426432;                5; 5xf32[2,262144,2,128,16]
Memory Space: vmem (color=1)
   64.00MiB(  6%);   64.00MiB;      1949696;                8; f32[16]
"""
    assert largest_allocations(report) == [
        Allocation(64 * GIB, "f32[262144,128], f32[33554432,32]"),
        Allocation(512, "5xf32[2,262144,2,128,16]"),
    ]
    assert largest_allocations(report, 1) == [Allocation(64 * GIB, "f32[262144,128], f32[33554432,32]")]
    assert largest_allocations("") == []


def memory_of(**changes: dict[str, Any]) -> Memory:
    run: Any = run_on(fsdp=4, data=2)
    parts = {name: dataclasses.replace(getattr(run, name), **values) for name, values in changes.items()}
    return estimated_plan(run=dataclasses.replace(run, **parts)).memory


def test_an_estimate_shrinks_with_remat_and_with_microbatches_that_save_more_than_a_gradient() -> None:
    none, names, full = (
        memory_of(model={"remat": remat, "num_layers": 4}).temporaries for remat in ("none", "names", "full")
    )
    assert none > names > full
    whole, half = (
        memory_of(train={"batch_tokens": 64 * 64, "accumulation_steps": parts}) for parts in (1, 2)
    )
    (activations,) = [piece.bytes for piece in whole.largest if piece.arrays.startswith("activations")]
    (logits,) = [piece.bytes for piece in whole.largest if piece.arrays.startswith("a chunk")]
    assert whole.temporaries - half.temporaries == pytest.approx(
        activations / 2 + logits / 2 - whole.parameters, abs=2
    )


def test_an_estimate_is_the_sum_of_its_pieces_and_names_them() -> None:
    memory = memory_of()
    assert memory.is_estimate and memory.temporaries == sum(piece.bytes for piece in memory.largest)
    assert [piece.bytes for piece in memory.largest] == sorted(
        (piece.bytes for piece in memory.largest), reverse=True
    )
    assert "gradients" in [piece.arrays for piece in memory.largest]


def test_attention_without_a_kernel_holds_its_scores() -> None:
    kernel, plain = (
        memory_of(model={"attention": kind, "remat": "full"}) for kind in ("splash", "reference")
    )
    # 1 row of a device, 64 x 64 scores of 2 heads, in float32 twice.
    assert plain.temporaries - kernel.temporaries == 64 * 64 * 2 * 8


def test_an_evaluation_by_shapes_holds_the_whole_cache() -> None:
    run = small_run(mesh={"data": 8}, model={"num_layers": 3})
    plan = plan_evaluation(run, parse_topology("gpu:h100x8"), jax.devices(), rows=16)
    (cache,) = [piece.bytes for piece in plan.memory.largest if piece.arrays == "KV cache"]
    keys_and_values = 2 * 3 * 2 * 64 * 16 * 4
    mixed = 3 * 2 * 64 * 3 * 16 * 4 if run.model.conv_width else 0
    assert cache == keys_and_values + mixed
    assert plan.memory.optimizer == 0 and plan.is_evaluation and plan.tokens == 16 * 64
    assert plan.topology.chip is CHIPS["h100"]


def test_an_evaluation_reads_a_microbatch_rounded_up_to_the_devices() -> None:
    assert default_rows(small_run(mesh={"data": 8}), 8) == 8
    assert default_rows(small_run(mesh={"data": 4, "fsdp": 4}), 16) == 16
    assert default_rows(small_run(mesh={"data": 2}, train={"accumulation_steps": 2}), 2) == 4

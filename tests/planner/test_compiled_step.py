"""What the TPU compiler makes of the train step: its kernel, its gathers, its logits, its collectives."""

import functools
import math
import os

import jax
import pytest

from icl.data.config import DataConfig
from icl.errors import InputError
from icl.model import ModelConfig, abstract_params
from icl.parallel.mesh import MeshConfig
from icl.planner import topology as topologies
from icl.planner.compiling import Plan, estimate_training, lay_out, plan_training
from icl.planner.hlo import Collective, Program
from icl.planner.roofline import plan_roofline
from icl.training.config import RunConfig, TrainConfig
from icl.training.loss import CHUNK

# Sizes that no other dimension of the program has, so that shapes tell what they are.
LAYERS, WIDTH, HEADS, VOCAB, LENGTH, ROWS = 5, 512, 4, 1792, 640, 16
FSDP, TENSOR, PARTS = 2, 2, 2
RUN = RunConfig(
    model=ModelConfig(
        vocab_size=VOCAB,
        max_length=LENGTH,
        num_layers=LAYERS,
        embed_dim=WIDTH,
        num_heads=HEADS,
        compute_dtype="bfloat16",
        remat="names",
    ),
    data=DataConfig(row_length=LENGTH, weights={"cipher": 1.0}),
    train=TrainConfig(batch_tokens=ROWS * LENGTH, accumulation_steps=PARTS),
    mesh=MeshConfig(data=1, fsdp=FSDP, tensor=TENSOR),
)
POSITIONS = ROWS * LENGTH // FSDP // PARTS
"""Of a device, in a microbatch."""


@functools.cache
def plan() -> Plan:
    topology = topologies.parse_topology("v5p:2x2x1")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in os.environ.items():
            patch.setenv(name, value)
        try:
            topologies.prepare_environment(topology)
        except InputError as error:
            pytest.skip(str(error))
        return plan_training(RUN, topology, topologies.devices_of(topology))


def program() -> Program:
    found = plan().program
    assert found is not None and not found.unknown_loops
    return found


def of_kind(kind: str) -> list[Collective]:
    return [found for found in program().collectives if found.kind == kind]


def elements(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def matrices() -> list[int]:
    """Elements of the matrices of one layer that a device of the tensor axis holds, whole over fsdp."""
    layers = abstract_params(RUN.model)["layers"]
    kernels = [
        *(layers["attention"][name]["kernel"] for name in ("query", "key", "value", "out")),
        *(layers["mlp"][name]["kernel"] for name in ("up", "down")),
    ]
    return [kernel.size // LAYERS // TENSOR for kernel in kernels]


def test_the_step_runs_the_splash_kernel_forward_and_backward_once_a_layer_and_microbatch() -> None:
    assert plan().attention == "splash"
    assert program().custom_calls["tpu_custom_call"] == 3 * LAYERS * PARTS


def test_a_gather_brings_one_layers_parameters_at_most_and_never_the_stack() -> None:
    gathers = of_kind("all-gather")
    assert gathers
    largest = max(*matrices(), WIDTH * VOCAB // TENSOR)
    for found in gathers:
        for array in found.results:
            assert elements(array.shape) <= largest, found
            assert not (array.shape[0] == LAYERS and elements(array.shape) > LAYERS * 4 * WIDTH), found


def test_layers_are_gathered_in_the_compute_type_once_forward_and_once_backward() -> None:
    """Those of matrices: biases and norms are small."""
    smallest = min(matrices())
    gathered = sum(
        found.count * elements(array.shape)
        for found in of_kind("all-gather")
        for array in found.results
        if array.dtype == "bf16" and elements(array.shape) >= smallest and VOCAB // TENSOR not in array.shape
    )
    assert gathered == PARTS * 2 * LAYERS * sum(matrices())
    wide = [found for found in of_kind("all-gather") if found.dtype == "f32" and found.bytes >= 4 * smallest]
    assert all({VOCAB // TENSOR, LENGTH} & set(found.results[0].shape) for found in wide), wide


def test_gradients_of_layers_are_scattered_once_a_layer_and_microbatch() -> None:
    smallest = min(matrices())
    scattered = sum(
        found.count * elements(array.shape)
        for found in of_kind("reduce-scatter")
        for array in found.operands
        if elements(array.shape) >= smallest and not {VOCAB // TENSOR, LENGTH} & set(array.shape)
    )
    summed = [
        found
        for found in of_kind("all-reduce")
        if any(elements(array.shape) in matrices() for array in found.operands)
    ]
    assert not summed
    assert scattered == PARTS * LAYERS * sum(matrices())


def test_the_tensor_axis_sums_activations_as_often_as_the_rules_say() -> None:
    """Of a layer: two projections into the residual stream, the first once more where it is computed again,
    and two gradients of what its matrices read. Besides: the embedding's look-up, and what the loss returns.
    """
    sums = sum(
        found.count
        for found in of_kind("all-reduce")
        for array in found.operands
        if elements(array.shape) == POSITIONS * WIDTH
    )
    assert sums == PARTS * (LAYERS * (2 + 1 + 2) + 2)


def test_logits_of_all_positions_stand_nowhere() -> None:
    chunk = -(-POSITIONS // -(-POSITIONS // CHUNK))
    assert chunk < POSITIONS / 2
    held = [array for array in program().arrays(in_memory=True) if VOCAB // TENSOR in array.shape]
    assert any(elements(array.shape) == chunk * VOCAB // TENSOR for array in held)
    assert max(elements(array.shape) for array in held) == chunk * VOCAB // TENSOR


def test_no_device_holds_the_activations_of_all_rows() -> None:
    whole = (ROWS // PARTS, LENGTH)
    shapes = [array.shape for array in program().arrays() if len(array.shape) > 2]
    assert not [shape for shape in shapes if shape[:2] == whole or shape[1:3] == whole and len(shape) > 3]
    assert [shape for shape in shapes if shape[:2] == (whole[0] // FSDP, LENGTH)]


def test_the_state_is_updated_in_place() -> None:
    memory = plan().memory
    assert memory.outputs < memory.parameters / 100
    assert memory.fits and memory.parameters < memory.optimizer


def test_an_estimate_from_shapes_is_near_what_the_compiler_says() -> None:
    topology = topologies.parse_topology("v5p:2x2x1")
    compiled = plan()
    shapes = estimate_training(RUN, topology, lay_out(RUN, topology, jax.devices()[:4]))
    assert shapes.memory.parameters == compiled.memory.parameters
    assert shapes.memory.optimizer == compiled.memory.optimizer
    assert 0.5 < shapes.memory.temporaries / compiled.memory.temporaries < 2
    guess, found = plan_roofline(shapes), plan_roofline(compiled)
    assert guess is not None and found is not None
    assert guess.compute == pytest.approx(found.compute, rel=0.15)
    assert guess.transfer == pytest.approx(found.transfer, rel=0.35)

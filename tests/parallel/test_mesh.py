"""Meshes and sharding rules: what they give, and what they refuse by name."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from icl.errors import InputError
from icl.model import ModelConfig, init_sharded
from icl.parallel import MESH_AXES, MeshConfig, Partitioner, Rules, make_mesh

MODEL = ModelConfig(vocab_size=64, max_length=32, num_layers=2, embed_dim=32, num_heads=4)


def partitioner(*sizes: int, rules: Rules | None = None) -> Partitioner:
    return Partitioner(make_mesh(MeshConfig(*sizes)), rules or Rules())


@pytest.mark.parametrize(
    ("sizes", "want"),
    [((-1, 1, 1, 1), (8, 1, 1, 1)), ((2, -1, 2, 1), (2, 2, 2, 1)), ((1, 2, 2, 2), (1, 2, 2, 2))],
)
def test_minus_one_takes_the_devices_that_are_left(sizes: tuple[int, ...], want: tuple[int, ...]) -> None:
    assert tuple(make_mesh(MeshConfig(*sizes)).shape[axis] for axis in MESH_AXES) == want


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((3, 1, 1, 1), "3 devices, but 8 are present"),
        ((-1, 3, 1, 1), "3 does not divide the 8 devices"),
        ((-1, -1, 1, 1), "at most one axis"),
        ((0, 1, 1, 1), r"MeshConfig\.data = 0"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_mesh(MeshConfig(*sizes))


def test_a_mesh_axis_used_twice_is_refused_by_parameter_name() -> None:
    part = partitioner(2, 2, 2, 1, rules=Rules(mlp="fsdp"))
    with pytest.raises(InputError, match=r"layers/mlp/\w+/kernel.*'fsdp' holds both"):
        init_sharded(MODEL, jax.random.key(0), part)


def test_a_dimension_that_does_not_divide_is_refused_by_parameter_name() -> None:
    model = ModelConfig(vocab_size=63, max_length=32, num_layers=2, embed_dim=32, num_heads=4)
    with pytest.raises(InputError, match=r"embedding/tokens: dimension 0 \('vocab', 63\).*2 devices"):
        init_sharded(model, jax.random.key(0), partitioner(2, 2, 2, 1))


def test_heads_are_never_cut_in_pieces() -> None:
    with pytest.raises(InputError, match=r"ModelConfig\.num_heads = 4.*8 devices.*tensor"):
        init_sharded(MODEL, jax.random.key(0), partitioner(1, 1, 8, 1))


def test_a_batch_is_split_over_data_and_fsdp_and_sequence() -> None:
    part = partitioner(2, 2, 1, 2)
    assert part.batch_sharding.spec == PartitionSpec(("data", "fsdp"), "sequence")
    assert part.batch_divisor == 4


def test_no_device_holds_more_than_its_part_of_a_parameter() -> None:
    params = init_sharded(MODEL, jax.random.key(0), partitioner(1, 2, 4, 1))
    kernel = params["layers"]["mlp"]["up"]["kernel"]
    assert kernel.dtype == jnp.float32
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 16, 32)}
    table = params["embedding"]["tokens"]
    assert {shard.data.shape for shard in table.addressable_shards} == {(16, 16)}

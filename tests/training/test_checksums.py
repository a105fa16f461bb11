from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icl.errors import InputError
from icl.parallel.mesh import MeshConfig, make_mesh
from icl.training.checksums import describe_arrays, verify_arrays


def _checksum(x: jax.Array | np.ndarray) -> str:
    return describe_arrays({"x": jnp.asarray(x)}, "")["/x"]


def test_every_single_bit_changes_the_checksum() -> None:
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    seen = {_checksum(values)}
    for bit in range(values.nbytes * 8):
        flipped = bytearray(values.tobytes())
        flipped[bit // 8] ^= 1 << (bit % 8)
        seen.add(_checksum(np.frombuffer(bytes(flipped), np.float32).reshape(3, 4)))
    assert len(seen) == values.nbytes * 8 + 1


def test_elements_that_trade_places_change_the_checksum() -> None:
    values = np.arange(64, dtype=np.float32)
    sums = {_checksum(np.roll(values, shift)) for shift in range(64)}
    assert len(sums) == 64


def test_the_checksum_names_type_and_shape() -> None:
    zeros = [jnp.zeros((2, 3), dtype) for dtype in (jnp.float32, jnp.int32, jnp.bfloat16, jnp.bool_)]
    described = [_checksum(x).rpartition(":")[0] for x in [*zeros, jnp.zeros(())]]
    assert described == ["float32[2,3]", "int32[2,3]", "bfloat16[2,3]", "bool[2,3]", "float32[]"]


def test_negative_zero_differs_from_zero() -> None:
    assert _checksum(np.zeros(2, np.float32)) != _checksum(-np.zeros(2, np.float32))


@pytest.mark.parametrize("spec", [("data",), (None, "data"), (("data", "tensor"), None), ("tensor", "data")])
def test_the_checksum_is_the_same_under_every_sharding(spec: tuple[object, ...]) -> None:
    mesh = make_mesh(MeshConfig(data=4, tensor=2))
    values = jax.random.normal(jax.random.key(0), (16, 24))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    assert _checksum(jax.device_put(values, sharding)) == _checksum(values)


def test_a_changed_array_is_refused_by_name() -> None:
    tree: dict[str, Any] = {"a": {"b": jnp.ones(4)}, "c": jnp.zeros(2)}
    described = describe_arrays(tree, "params")
    verify_arrays(tree, "params", described, "here")
    tree["a"]["b"] = tree["a"]["b"].at[2].set(1.0000001)
    with pytest.raises(InputError, match="here: array params/a/b is damaged"):
        verify_arrays(tree, "params", described, "here")

"""What the reader finds in programs that XLA compiled here, against closed forms: sharded layers of an MLP.

L layers of two matrices [D, F] and [F, D], B rows of D.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from icl.planner.hlo import Program, Total, read_hlo
from icl.planner.hlo_text import Array

L, B, D, F = 5, 16, 32, 64


def mesh_of(**axes: int) -> Mesh:
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def compiled(function: Callable[..., Any], *arguments: jax.ShapeDtypeStruct) -> Program:
    text = jax.jit(function).lower(*arguments).compile().as_text()
    assert text is not None
    return read_hlo(text)


def sharded(mesh: Mesh, shape: tuple[int, ...], *spec: str | None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))


def mlp_layers(mesh: Mesh, batch_axis: str | None) -> Callable[..., jax.Array]:
    rows = NamedSharding(mesh, PartitionSpec(batch_axis))

    def layer(x_BD: jax.Array, weights: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        hidden_BF = jnp.tanh(x_BD @ weights[0])
        return jax.lax.with_sharding_constraint(x_BD + hidden_BF @ weights[1], rows), None

    return lambda x_BD, up_LDF, down_LFD: jax.lax.scan(layer, x_BD, (up_LDF, down_LFD))[0]


def test_fsdp_gathers_each_layer_once() -> None:
    mesh = mesh_of(fsdp=8)
    found = compiled(
        mlp_layers(mesh, "fsdp"),
        sharded(mesh, (B, D), "fsdp"),
        sharded(mesh, (L, D, F), None, "fsdp"),
        sharded(mesh, (L, F, D), None, None, "fsdp"),
    )
    assert found.totals() == {"all-gather": Total(2 * L, 2 * L * D * F * 4)}
    assert {c.group_size for c in found.collectives} == {8}
    assert all("while/body" in c.where for c in found.collectives)
    assert found.flops == L * 2 * 2 * (B // 8) * D * F
    assert not {Array("f32", (L, D, F)), Array("f32", (L, F, D))} & found.arrays()


def test_tensor_parallelism_reduces_once_a_layer() -> None:
    mesh = mesh_of(data=2, tensor=4)
    found = compiled(
        mlp_layers(mesh, "data"),
        sharded(mesh, (B, D), "data"),
        sharded(mesh, (L, D, F), None, None, "tensor"),
        sharded(mesh, (L, F, D), None, "tensor"),
    )
    assert found.totals() == {"all-reduce": Total(L, L * (B // 2) * D * 4)}
    assert {c.group_size for c in found.collectives} == {4}
    assert found.flops == L * 2 * 2 * (B // 2) * D * (F // 4)


def test_gradients_of_microbatches_are_counted_in_both_loops() -> None:
    """Forward and backward gather a layer each, for every microbatch; remat gathers no less."""
    mesh, microbatches = mesh_of(fsdp=8), 3
    forward = mlp_layers(mesh, "fsdp")

    def step(x_MBD: jax.Array, up_LDF: jax.Array, down_LFD: jax.Array) -> Any:
        def one(total: Any, x_BD: jax.Array) -> tuple[Any, None]:
            gradients = jax.grad(lambda w: jnp.sum(forward(x_BD, *w) ** 2))((up_LDF, down_LFD))
            return jax.tree.map(jnp.add, total, gradients), None

        return jax.lax.scan(one, jax.tree.map(jnp.zeros_like, (up_LDF, down_LFD)), x_MBD)[0]

    found = compiled(
        step,
        sharded(mesh, (microbatches, B, D), None, "fsdp"),
        sharded(mesh, (L, D, F), None, "fsdp"),
        sharded(mesh, (L, F, D), None, None, "fsdp"),
    )
    gathered = found.totals()["all-gather"]
    assert gathered == Total(4 * L * microbatches, 4 * L * microbatches * D * F * 4)
    reduced = [c for c in found.collectives if c.kind in ("all-reduce", "reduce-scatter")]
    assert sum(c.total_bytes for c in reduced) == 2 * L * microbatches * D * F * 4
    assert found.flops == microbatches * L * 6 * 2 * (B // 8) * D * F
    assert found.unknown_loops == ()


def test_a_loop_with_a_traced_limit_is_named() -> None:
    mesh = mesh_of(tensor=8)

    def repeated(n: jax.Array, x_BD: jax.Array, w_DD: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, n, lambda _, y_BD: y_BD @ w_DD, x_BD)

    found = compiled(
        repeated,
        jax.ShapeDtypeStruct((), jnp.int32),
        sharded(mesh, (B, D)),
        sharded(mesh, (D, D), "tensor"),
    )
    assert len(found.unknown_loops) == 1
    assert {c.count for c in found.collectives} == {1}

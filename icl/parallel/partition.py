"""Sharding by rules: logical axis names of an array become mesh axes.

Every parameter and activation names its axes; one frozen table says which mesh axes hold each name. A
rule that uses a mesh axis twice for one array, or a dimension that does not divide, is an error that
names the array.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from icl.errors import InputError

MeshAxes = str | tuple[str, ...] | None
LogicalAxes = tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class Rules:
    """Logical axis -> mesh axes. `embed` is the width of a parameter, `activation` that of an activation."""

    batch: MeshAxes = ("data", "fsdp")
    length: MeshAxes = "sequence"
    activation: MeshAxes = None
    embed: MeshAxes = "fsdp"
    heads: MeshAxes = "tensor"
    kv_heads: MeshAxes = "tensor"
    mlp: MeshAxes = "tensor"
    vocab: MeshAxes = "tensor"
    layers: MeshAxes = None

    def mesh_axes(self, logical: str | None) -> tuple[str, ...]:
        """The mesh axes of one logical axis, as a tuple; empty where it is not split."""
        axes = getattr(self, logical) if logical else None
        if axes is None:
            return ()
        return (axes,) if isinstance(axes, str) else tuple(axes)


DEFAULT_RULES = Rules()


@dataclasses.dataclass(frozen=True)
class Partitioner:
    """A mesh and the rules that place arrays on it."""

    mesh: Mesh
    rules: Rules = DEFAULT_RULES

    def spec(
        self, axes: LogicalAxes, shape: tuple[int, ...] | None = None, name: str = "array"
    ) -> PartitionSpec:
        """The PartitionSpec of an array with these logical axes; InputError names it where that cannot be."""
        seen: dict[str, str] = {}
        parts: list[MeshAxes] = []
        for i, logical in enumerate(axes):
            mesh_axes = self.rules.mesh_axes(logical)
            for axis in mesh_axes:
                if axis in seen:
                    raise InputError(
                        f"sharding of {name}: mesh axis '{axis}' holds both '{seen[axis]}' and '{logical}'"
                    )
                seen[axis] = str(logical)
            size = math.prod(self.mesh.shape[axis] for axis in mesh_axes)
            if shape is not None and shape[i] % size:
                raise InputError(
                    f"sharding of {name}: dimension {i} ('{logical}', {shape[i]}) is not divisible by the "
                    f"{size} devices of mesh axes {mesh_axes}"
                )
            parts.append(mesh_axes[0] if len(mesh_axes) == 1 else (mesh_axes or None))
        return PartitionSpec(*parts)

    def sharding(
        self, axes: LogicalAxes, shape: tuple[int, ...] | None = None, name: str = "array"
    ) -> NamedSharding:
        """The sharding of an array with these logical axes."""
        return NamedSharding(self.mesh, self.spec(axes, shape, name))

    def constrain(self, x: jax.Array, axes: LogicalAxes) -> jax.Array:
        """Holds an activation to its sharding; without this, Auto mode may lose it silently."""
        return jax.lax.with_sharding_constraint(x, self.sharding(axes))

    def tree_shardings(self, axes_tree: Any, abstract_tree: Any) -> Any:
        """Shardings of a tree of arrays from the tree of their logical axes."""

        def one(path: tuple[Any, ...], leaf: Any, axes: LogicalAxes) -> NamedSharding:
            return self.sharding(axes, leaf.shape, jax.tree_util.keystr(path, simple=True, separator="/"))

        return jax.tree_util.tree_map_with_path(one, abstract_tree, axes_tree)

    @property
    def batch_sharding(self) -> NamedSharding:
        """Of [batch, length] arrays."""
        return self.sharding(("batch", "length"))

    @property
    def replicated(self) -> NamedSharding:
        """Of an array that every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch_divisor(self) -> int:
        """What the number of rows of a batch has to be a multiple of."""
        return math.prod(self.mesh.shape[axis] for axis in self.rules.mesh_axes("batch"))

    @property
    def platform(self) -> str:
        """Platform of the mesh: "cpu", "gpu" or "tpu"; it may be another than that of this machine."""
        return str(self.mesh.devices.flat[0].platform)

    def axis_sizes(self) -> Mapping[str, int]:
        """Devices along each mesh axis."""
        return dict(self.mesh.shape)


def platform_of(partitioner: Partitioner | None) -> str:
    """Platform that a program is meant for: that of its mesh, or without one of this machine."""
    return jax.default_backend() if partitioner is None else partitioner.platform

"""The device mesh: four named axes over all devices, hybrid over slices where there are several.

`data` and `fsdp` split the batch (and `fsdp` the parameters), `tensor` splits heads, MLP and vocabulary,
`sequence` splits the positions of a row.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from icl.errors import InputError, check_types

MESH_AXES = ("data", "fsdp", "tensor", "sequence")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; at most one is -1 and takes what the others leave.

    `dcn_data` is the number of slices (or hosts without a fast link) that `data` spans over the slow
    network; it divides `data`.

    On TPUs keep `embed_dim / fsdp` at 64 or more (128 is better), and give the other devices to `data`: of
    thinner parts XLA makes whole arrays by summing them over all devices, which moves twice as much.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1
    dcn_data: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        sizes = {axis: getattr(self, axis) for axis in MESH_AXES}
        for axis, size in sizes.items():
            if size != -1 and size < 1:
                raise InputError(f"MeshConfig.{axis} = {size}: expected a positive number of devices, or -1")
        if list(sizes.values()).count(-1) > 1:
            raise InputError(f"MeshConfig: at most one axis may be -1, got {sizes}")
        if self.dcn_data < 1:
            raise InputError(f"MeshConfig.dcn_data = {self.dcn_data}: expected a positive number of slices")

    def sizes(self, num_devices: int) -> tuple[int, ...]:
        """Devices along each of `MESH_AXES`, with -1 filled in; raises InputError where they do not fit."""
        sizes = [getattr(self, axis) for axis in MESH_AXES]
        known = math.prod(size for size in sizes if size != -1)
        if -1 in sizes:
            if num_devices % known:
                raise InputError(
                    f"MeshConfig {self._text()}: {known} does not divide the {num_devices} devices present"
                )
            sizes[sizes.index(-1)] = num_devices // known
        if math.prod(sizes) != num_devices:
            raise InputError(
                f"MeshConfig {self._text()} names {math.prod(sizes)} devices, but {num_devices} are present"
            )
        if sizes[0] % self.dcn_data:
            raise InputError(f"MeshConfig.dcn_data = {self.dcn_data} does not divide data = {sizes[0]}")
        return tuple(sizes)

    def _text(self) -> str:
        return "(" + ", ".join(f"{axis}={getattr(self, axis)}" for axis in MESH_AXES) + ")"


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes `MESH_AXES` over `devices` (all by default), in an order that suits the network.

    Axes are Auto: Flax Linen modules fail under the Explicit axes that `jax.make_mesh` gives by default.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = config.sizes(len(devices))
    if config.dcn_data > 1:
        inside = (sizes[0] // config.dcn_data, *sizes[1:])
        grid = mesh_utils.create_hybrid_device_mesh(
            inside,
            (config.dcn_data, 1, 1, 1),
            devices,
            allow_split_physical_axes=True,
            process_is_granule=not hasattr(devices[0], "slice_index"),
        )
    else:
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))

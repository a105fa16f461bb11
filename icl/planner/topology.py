"""Devices that are not there: `v5p:8x8x8`, `v6e:4x4`, two slices `v5p:4x4x4@2`, `gpu:h100x8`, `cpu:8`.

TPUs are those of the TPU compiler (the `libtpu` wheel), which compiles for them on any machine. GPUs and CPUs
are simulated CPU devices, on which nothing runs: they carry a mesh and its shardings.
"""

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from icl.errors import InputError
from icl.parallel.chips import CHIPS, Chip
from icl.tpus import has_tpu_compiler

_CORES = {
    "v4": ("v4", 2),
    "v5e": ("v5litepod", 1),
    "v5p": ("v5p", 2),
    "v6e": ("v6e", 1),
}
"""What Google names slices by, and cores of a chip that the name counts."""
_EXPECTED = (
    "expected TPU:SIDES (@SLICES), gpu:CHIPxN or cpu:N, such as v5p:8x8x8, v6e:4x4, v5p:4x4x4@2,"
    " gpu:h100x8, cpu:8"
)


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of one kind, in `slices` equal slices (GPUs and CPUs: one)."""

    name: str
    chip: Chip
    num_chips: int
    slices: int = 1

    @property
    def is_compiled(self) -> bool:
        """Whether there is a compiler for it."""
        return self.chip.platform == "tpu"


def parse_topology(text: str) -> Topology:
    """The topology of that name.

    Raises:
      InputError: it is none.
    """
    if found := re.fullmatch(r"cpu:([0-9]+)", text):
        return Topology(text, _this_machine(_count(text, found[1])), _count(text, found[1]))
    if found := re.fullmatch(r"gpu:([a-z][a-z0-9]*?)x([0-9]+)", text):
        return Topology(text, _chip(text, found[1], "gpu"), _count(text, found[2]))
    if found := re.fullmatch(r"([a-z][a-z0-9]*):([0-9]+(?:x[0-9]+){0,2})(?:@([0-9]+))?", text):
        chip, slices = _chip(text, found[1], "tpu"), _count(text, found[3] or "1")
        sides = [_count(text, side) for side in found[2].split("x")]
        flat = chip.name in ("v5e", "v6e")
        if len(sides) != (2 if flat else 3):
            shape = "two sides, such as 4x4" if flat else "three sides, such as 4x4x4"
            raise InputError(f"--topology {text!r}: a slice of {chip.name} has {shape}")
        return Topology(text, chip, _count(text, str(math.prod(sides) * slices)), slices)
    raise InputError(f"--topology {text!r}: {_EXPECTED}")


def prepare_environment(topology: Topology) -> None:
    """Says to JAX and libtpu that no TPU of this machine is meant; before JAX is loaded."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if not topology.is_compiled:
        return
    if not has_tpu_compiler():
        raise InputError(
            f"--topology {topology.name!r} needs the TPU compiler, which is not installed:"
            " expected the package libtpu, as pip install 'icl[plan]' brings it"
        )
    series, cores = _CORES[topology.chip.name]
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", f"{series}-{topology.num_chips // topology.slices * cores}")
    # Nothing is run, so another process may hold a TPU, or the compiler.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")


def devices_of(topology: Topology) -> Sequence[Any]:
    """One device a chip.

    Raises:
      InputError: there is no such slice.
    """
    import jax

    if not topology.is_compiled:
        return _simulated(topology)
    from jax.experimental import topologies

    options: dict[str, Any] = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"
    name = topology.name.partition("@")[0]
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise InputError(f"--topology {topology.name!r}: the TPU compiler refuses it: {reason}") from None
    return list(found.devices)


def _simulated(topology: Topology) -> Sequence[Any]:
    import jax

    with contextlib.suppress(RuntimeError):  # JAX may run already, with as many devices as it has.
        if getattr(jax.config, "jax_num_cpu_devices", -1) < topology.num_chips:
            jax.config.update("jax_num_cpu_devices", topology.num_chips)
    found = jax.devices("cpu")
    if len(found) < topology.num_chips:
        raise InputError(
            f"--topology {topology.name!r}: this process simulates {len(found)} devices,"
            f" expected at least {topology.num_chips}"
        )
    return found[: topology.num_chips]


def _this_machine(num_devices: int) -> Chip:
    """A device of a CPU: its share of this machine's memory, and no speed."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / num_devices
    return Chip("cpu", "cpu", "cpu", memory, None, None, None, None, "this machine")


def _chip(text: str, name: str, platform: str) -> Chip:
    known = (
        list(_CORES)
        if platform == "tpu"
        else [chip.name for chip in CHIPS.values() if chip.platform == platform]
    )
    if name not in known:
        raise InputError(f"--topology {text!r}: unknown chip {name!r}, expected one of {', '.join(known)}")
    return CHIPS[name]


def _count(text: str, number: str) -> int:
    if not 1 <= int(number) <= 100_000:
        raise InputError(f"--topology {text!r}: expected 1 to 100,000 devices, not {int(number):,}")
    return int(number)

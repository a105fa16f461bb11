"""What one chip holds and does, from its vendor's pages: the figures that plans and utilisation rest on.

Figures are peaks. Of `memory`, a runtime keeps a little to itself (the TPU's up to 4 %). NVIDIA's GB are read
as 10**9 bytes; cards report up to 7 % more, of which driver and error correction take their part.
"""

import dataclasses

_GIB = 2**30
_TPU = "https://docs.cloud.google.com/tpu/docs/"
_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
GPUS_A_HOST = 8
"""Of a DGX or HGX: as many share the fast links."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator, as JAX counts its devices (of a TPU7x, half a chip).

    Attributes:
      name: as topologies name it.
      platform: "tpu", "gpu" or "cpu".
      kind: part of JAX's `device_kind` that tells it.
      memory: bytes of HBM.
      flops: dense bfloat16 FLOP/s (float16 where there is no bfloat16); None where none can be told.
      bandwidth: bytes/s between HBM and chip.
      link: bytes/s one way over all of a chip's fast links (ICI, NVLink; PCIe where there is none).
      network: bytes/s one way and chip between slices, or between hosts of GPUs; None where not published.
      source: page that the figures stand on.
    """

    name: str
    platform: str
    kind: str
    memory: float
    flops: float | None
    bandwidth: float | None
    link: float | None
    network: float | None
    source: str


def _tpu(name: str, kind: str, gib: int, teraflops: float, bandwidth: int, link: int, network: int) -> Chip:
    """A TPU; bandwidth and link (both ways, as Google gives it) in GB/s, network in Gbit/s."""
    return Chip(
        *(name, "tpu", kind, gib * _GIB, teraflops * 1e12, bandwidth * 1e9, link * 0.5e9),
        *(network / 8 * 1e9 if network else None, _TPU + name),
    )


def _gpu(
    name: str, kind: str, gb: int, teraflops: int, bandwidth: int, link: int, network: int, page: str
) -> Chip:
    """A GPU; bandwidth and link (both ways, as NVIDIA gives it) in GB/s, network of a DGX in Gbit/s."""
    return Chip(
        *(name, "gpu", kind, gb * 1e9, teraflops * 1e12, bandwidth * 1e9, link * 0.5e9),
        *(network / 8 * 1e9 if network else None, _NVIDIA + page),
    )


_CHIPS = (
    # Links of v4: six of 50 GB/s each way (https://arxiv.org/abs/2304.01433, table 4).
    _tpu("v4", "TPU v4", 32, 275, 1200, 600, 0),
    # Networks of v5e and v6e: of a pod of 256 chips, 6.4 and 25.6 Tbit/s.
    _tpu("v5e", "TPU v5 lite", 16, 197, 819, 400, 25),
    _tpu("v5p", "TPU v5", 95, 459, 2765, 1200, 50),
    _tpu("v6e", "TPU v6", 32, 918, 1638, 800, 100),
    # Half of what the page gives for a chip, which is two devices.
    _tpu("tpu7x", "TPU7", 96, 1153.5, 3690, 600, 50),
    # Tensor FLOP/s without sparsity. Networks are those of the DGX with eight of the kind.
    _gpu("v100", "V100", 32, 125, 900, 300, 50, "v100/"),
    _gpu("a100", "A100", 80, 312, 2039, 600, 200, "a100/"),
    _gpu("h100", "H100", 80, 989, 3350, 900, 400, "h100/"),
    _gpu("h200", "H200", 141, 989, 4800, 900, 400, "h200/"),
    _gpu("b200", "B200", 180, 2250, 8000, 1800, 400, "dgx-b200/"),
    _gpu("l40s", "L40S", 48, 362, 864, 64, 0, "l40s/"),
    _gpu("l40", "L40", 48, 181, 864, 64, 0, "l40/"),
    _gpu("l4", "L4", 24, 121, 300, 64, 0, "l4/"),
    _gpu("t4", "T4", 16, 65, 320, 32, 0, "tesla-t4/"),
)
CHIPS = {chip.name: chip for chip in _CHIPS}


def find_chip(device_kind: str) -> Chip | None:
    """The chip that JAX calls so; None where it is not in the table."""
    found = [chip for chip in _CHIPS if chip.kind.lower() in device_kind.lower()]
    return max(found, key=lambda chip: len(chip.kind), default=None)

"""The FLOP/s that a run can be held against: the chip's own figure, or a measured matmul on a CPU."""

import statistics
import time

import jax
import jax.numpy as jnp

from icl.parallel.chips import find_chip


def peak_flops() -> float | None:
    """FLOP/s of all devices together; None for an accelerator that is not known.

    On a CPU, where no figure is to be had, the median of a few float32 matmuls on every host: simulated
    devices share the machine, so it counts once.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return measure_matmul_flops() * jax.process_count()
    chip = find_chip(device.device_kind)
    return None if chip is None or chip.flops is None else chip.flops * jax.device_count()


def measure_matmul_flops(size: int = 1024, repeats: int = 7) -> float:
    """Median FLOP/s of `size`^3 float32 matmuls on this host's first device, back to back."""
    x = jax.device_put(jnp.ones((size, size), jnp.float32), jax.local_devices()[0])
    matmul = jax.jit(lambda a, b: a @ b)
    matmul(x, x).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        matmul(x, x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds)

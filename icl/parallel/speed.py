"""The FLOP/s that a run can be held against: the chip's own figure, or a measured matmul on a CPU."""

import statistics
import time

import jax
import jax.numpy as jnp

# Dense bfloat16 peak of one device, from the vendors' data sheets; matched as parts of `device_kind`.
_PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
    "TPU7": 2307e12,
    "H200": 989e12,
    "H100": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
}


def peak_flops() -> float | None:
    """FLOP/s of all devices together; None for an accelerator that is not known.

    On a CPU, where no figure is to be had, the median of a few float32 matmuls: simulated devices share
    the machine, so it counts once.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return measure_matmul_flops()
    for kind, flops in _PEAK_FLOPS.items():
        if kind.lower() in device.device_kind.lower():
            return flops * jax.device_count()
    return None


def measure_matmul_flops(size: int = 1024, repeats: int = 7) -> float:
    """Median FLOP/s of `size`^3 float32 matmuls on the first device, back to back."""
    x = jax.device_put(jnp.ones((size, size), jnp.float32), jax.devices()[0])
    matmul = jax.jit(lambda a, b: a @ b)
    matmul(x, x).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        matmul(x, x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds)

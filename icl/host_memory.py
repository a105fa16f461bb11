"""Keeps the C allocator from handing XLA's scratch memory back to the kernel after every step.

On a CPU, glibc returns the tens of megabytes that a step allocates as soon as it ends, and the next step
faults every page in again: measured as half the time of a small model's step.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # of malloc.h
_KEEP_BYTES = 2**31 - 1
_GROW_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory for the next step; True where it took effect.

    Call it before JAX starts its threads, each of which settles on a heap of its own. It does nothing
    where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # One arena: the heaps of further ones are given back whatever the threshold.
    settings = (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, _KEEP_BYTES),
        (_M_TOP_PAD, _GROW_BYTES),
    )
    return all(mallopt(option, value) == 1 for option, value in settings)

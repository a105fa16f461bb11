"""Whether TPUs, or their compiler alone, are on this machine; answered without JAX."""

import os
from glob import glob
from importlib.util import find_spec
from pathlib import Path


def has_tpu() -> bool:
    """Whether the machine has TPU devices."""
    return bool(glob("/dev/accel*") or glob("/dev/vfio/[0-9]*"))


def has_tpu_compiler() -> bool:
    """Whether JAX finds libtpu: the file that TPU_LIBRARY_PATH names, else the package."""
    path = os.environ.get("TPU_LIBRARY_PATH")
    return Path(path).is_file() if path else find_spec("libtpu") is not None

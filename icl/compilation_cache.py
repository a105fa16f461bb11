"""JAX's persistent compilation cache, on by default: a program is compiled once on a machine.

A cached program is the very one that was compiled before, so results do not depend on the cache.
"""

import hashlib
import os
import platform
from pathlib import Path

import jax


def use_compilation_cache() -> Path | None:
    """Turns the cache on, before anything is compiled; its folder, None where there can be none.

    That is JAX_COMPILATION_CACHE_DIR where set (empty: no cache), else a folder of the user's cache for
    this kind of machine: programs for a CPU use what instructions it has.
    """
    name = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if name is None:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = str(caches / "icl" / "compiled" / f"{platform.machine()}-{_instructions()}")
    if not name:
        return None
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", name)
    return folder


def _instructions() -> str:
    """Eight hex digits that stand for the instructions this processor has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(flags.encode()).hexdigest()[:8]

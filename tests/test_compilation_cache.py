"""Compiled programs are kept where the user wants them, or nowhere."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from icl.compilation_cache import use_compilation_cache
folder = use_compilation_cache()
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
assert float(jax.jit(lambda x: x * 2)(1.5)) == 3.0
print(folder)
"""


@pytest.mark.parametrize("named", [True, False])
def test_a_program_is_compiled_once_on_a_machine(tmp_path: Path, named: bool) -> None:
    environ = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "mine")} if named else {}
    folders = [run(environ | {"XDG_CACHE_HOME": str(tmp_path)}) for _ in range(2)]
    assert folders[0] == folders[1]
    assert folders[0].is_relative_to(tmp_path / ("mine" if named else "icl/compiled"))
    assert len(list(folders[0].glob("jit__lambda*"))) == 1


@pytest.mark.parametrize("environ", [{"JAX_COMPILATION_CACHE_DIR": ""}, {"XDG_CACHE_HOME": "/dev/null"}])
def test_without_a_place_nothing_is_kept(environ: dict[str, str]) -> None:
    assert run(environ) == Path("None")


def run(environ: dict[str, str]) -> Path:
    """What the script prints."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={"JAX_PLATFORMS": "cpu", "PATH": "", "HOME": "/nowhere"} | environ,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(done.stdout.strip())

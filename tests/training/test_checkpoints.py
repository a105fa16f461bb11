import dataclasses
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icl.errors import InputError
from icl.parallel.mesh import make_mesh
from icl.parallel.partition import Partitioner
from icl.training.checkpoints import Checkpoints, find_checkpoint, read_description, restore_params
from icl.training.description import Description
from icl.training.step import TrainState
from tests.training.small import one_device_setup, small_run

# Orbax's readers of damaged files leave coroutines behind.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SETUP = one_device_setup()
MOVE = jax.jit(lambda state: jax.tree.map(lambda x: x * 2 + 1, state), donate_argnums=0)


@pytest.fixture(scope="module")
def state() -> TrainState:
    """A state without zeros: those would compress to files of a few bytes."""
    rng = np.random.default_rng(0)

    def one(leaf: jax.Array) -> jax.Array:
        values = 100 * rng.normal(size=leaf.shape)
        return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

    return jax.tree.map(one, SETUP.init_state())


@pytest.fixture(scope="module")
def saved(state: TrainState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with one checkpoint of `state`, step 7."""
    workdir = tmp_path_factory.mktemp("run")
    with Checkpoints(workdir, keep_last=1) as checkpoints:
        checkpoints.save(7, state, SETUP.description())
    return workdir


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Iterator[Path]:
    """The same in a folder that a test may damage."""
    yield Path(shutil.copytree(saved, tmp_path / "copy"))


def _assert_same(found: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(expected))


def _restore_state(workdir: Path, step: int = 7) -> TrainState:
    with Checkpoints(workdir, keep_last=1) as checkpoints:
        return checkpoints.restore(step, SETUP.abstract_state())


def test_a_state_is_restored_bit_for_bit(saved: Path, state: TrainState) -> None:
    _assert_same(_restore_state(saved), state)


def test_an_async_save_holds_the_state_of_its_step_though_the_next_donates_it(tmp_path: Path) -> None:
    state = SETUP.init_state()
    before = jax.tree.map(np.array, jax.device_get(state))
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        checkpoints.save(1, state, SETUP.description())
        for _ in range(5):
            state = MOVE(state)
    _assert_same(_restore_state(tmp_path, 1), before)


def test_parameters_are_restored_the_same_on_another_mesh(saved: Path, state: TrainState) -> None:
    run = small_run(mesh={"data": 2, "fsdp": 2, "tensor": 2})
    partitioner = Partitioner(make_mesh(run.mesh))
    axes = jax.tree.map(lambda leaf: (None,) * leaf.ndim, state.params)
    axes["layers"]["mlp"]["up"]["kernel"] = ("layers", "embed", "mlp")
    shardings = partitioner.tree_shardings(axes, state.params)
    params, _ = restore_params(saved, shardings=shardings)
    kernel = params["layers"]["mlp"]["up"]["kernel"]
    assert len({str(shard.index) for shard in kernel.addressable_shards}) == 4
    _assert_same(params, state.params)


def test_restoring_parameters_does_not_read_the_optimizer(copy: Path, state: TrainState) -> None:
    shutil.rmtree(copy / "checkpoints" / "7" / "optimizer")
    params, _ = restore_params(copy)
    _assert_same(params, state.params)


def test_the_description_holds_what_reading_the_checkpoint_needs(saved: Path) -> None:
    description = read_description(saved)
    expected = SETUP.description()
    for field in dataclasses.fields(Description):
        if field.name not in ("step", "tokens", "checksums"):
            found, wanted = (getattr(d, field.name) for d in (description, expected))
            assert found == json.loads(json.dumps(wanted)) if field.name != "model" else found == wanted
    assert description.step == 7
    assert description.checksums["params/embedding/tokens"].startswith("float32[264,16]:")


def _flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(bytes(content))


def _array_files(checkpoint: Path) -> list[Path]:
    """Files with array data: their names are chunk indices such as 0.0."""
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name[0].isdigit())


@pytest.mark.parametrize("seed", range(12))
def test_one_flipped_bit_in_an_array_is_refused_by_name(copy: Path, seed: int) -> None:
    rng = random.Random(seed)
    item = rng.choice(["params", "optimizer"])
    files = [path for path in _array_files(copy / "checkpoints" / "7" / item) if path.stat().st_size > 64]
    path = rng.choice(files)
    _flip(path, rng.randrange(path.stat().st_size * 8))
    name = f"{item}/{path.parent.name.replace('.', '/')}"
    with pytest.raises(InputError, match=f"step 7: array {name} is damaged"):
        _restore_state(copy)


@pytest.mark.parametrize("seed", range(12))
def test_one_flipped_bit_in_any_file_is_refused_or_changes_nothing(
    copy: Path, state: TrainState, seed: int
) -> None:
    rng = random.Random(seed)
    path = rng.choice(sorted(path for path in copy.rglob("*") if path.is_file()))
    _flip(path, rng.randrange(path.stat().st_size * 8))
    try:
        restored = _restore_state(copy)
    except InputError as error:
        assert "step 7" in str(error)
    else:
        _assert_same(restored, state)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.99])
def test_a_changed_description_is_refused(copy: Path, share: float) -> None:
    path = copy / "checkpoints" / "7" / "description" / "metadata"
    _flip(path, int(path.stat().st_size * share) * 8 + 1)
    with pytest.raises(InputError, match="step 7: .*description.* damaged"):
        restore_params(copy)


def test_a_missing_array_is_refused_by_name(copy: Path) -> None:
    shutil.rmtree(copy / "checkpoints" / "7" / "params" / "embedding.tokens")
    with pytest.raises(InputError, match="step 7: array params/embedding/tokens is damaged or missing"):
        restore_params(copy)


def test_a_checkpoint_of_another_model_or_type_is_refused_by_array(saved: Path) -> None:
    with Checkpoints(saved, keep_last=1) as checkpoints:
        target = one_device_setup(model={"embed_dim": 32}).abstract_state()
        with pytest.raises(InputError, match=r"array params/.* is float32\[.*16.*expected float32\[.*32"):
            checkpoints.restore(7, target)
        half = jax.tree.map(lambda x: x.update(dtype=jnp.bfloat16), SETUP.abstract_state().params)
        with pytest.raises(InputError, match=r"is float32\[.*expected bfloat16\["):
            checkpoints.restore(7, SETUP.abstract_state()._replace(params=half))
        target = one_device_setup(optimizer={"kind": "muon"}).abstract_state()
        with pytest.raises(InputError, match="array optimizer/moments/.* expected"):
            checkpoints.restore(7, target)


def test_retention_keeps_the_last_and_every_so_many(tmp_path: Path) -> None:
    state = TrainState(*(jnp.zeros((), jnp.int32),) * 5)
    with Checkpoints(tmp_path, keep_last=2, keep_every=4) as checkpoints:
        for step in range(1, 12):
            checkpoints.save(step, state, SETUP.description())
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [4, 8, 10, 11]


def test_what_a_killed_save_left_is_cleared_and_never_taken_for_a_checkpoint(copy: Path) -> None:
    stale = copy / "checkpoints" / "9.orbax-checkpoint-tmp"
    shutil.copytree(copy / "checkpoints" / "7", stale)
    assert find_checkpoint(copy) == (copy / "checkpoints", 7)
    with Checkpoints(copy, keep_last=1) as checkpoints:
        assert checkpoints.latest() == 7
    assert not stale.exists()


def test_a_checkpoint_is_found_by_run_folder_or_step(saved: Path) -> None:
    folder = saved / "checkpoints"
    for path in (saved, folder, folder / "7", str(saved)):
        assert find_checkpoint(path) == (folder, 7)
    assert find_checkpoint(saved, 7) == (folder, 7)


def test_what_is_no_checkpoint_is_refused_with_what_was_expected(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "ladder" / "xs" / "checkpoints").mkdir(parents=True)
    for path, step, problem in (
        (tmp_path / "none", None, "does not exist: expected a run's folder"),
        (tmp_path / "file", None, "is a file: expected a run's folder"),
        (tmp_path, None, "holds no checkpoint"),
        (tmp_path / "ladder", None, "holds no checkpoint; .*perhaps xs"),
        (saved, 8, r"there is no step 8; expected one of \[7\]"),
        (saved / "checkpoints" / "7", 8, "the path names step 7"),
    ):
        with pytest.raises(InputError, match=problem):
            find_checkpoint(path, step)

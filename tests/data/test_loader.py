"""Claims about the host loader."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from icl.data.batch import Batch
from icl.data.config import DataConfig
from icl.data.loader import batches, host_rows, stack
from icl.data.ramp import make_ramp
from icl.data.rows import Rows
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.tasks import Task

BATCH_ROWS = 16


@pytest.fixture(scope="module")
def rows(tasks: Mapping[str, tuple[Task, ...]], weights: dict[str, float]) -> Rows:
    return Rows(DataConfig(row_length=48, weights=weights), tasks, ByteTokenizer())


def read(rows: Rows, number: int, start: int = 0, **settings: object) -> list[list[bytes]]:
    stream = batches(rows, BATCH_ROWS, start, **settings)  # type: ignore[arg-type]
    return [[np.asarray(array).tobytes() for array in batch] for batch in itertools.islice(stream, number)]


def part(host: int, num_hosts: int) -> Callable[[int], Sequence[int]]:
    """An equal part of any batch."""
    return lambda size: range(host * size // num_hosts, (host + 1) * size // num_hosts)


def test_batch_of_a_step_is_its_rows(rows: Rows) -> None:
    for step, batch in zip((5, 6), batches(rows, BATCH_ROWS, 5), strict=False):
        expected = stack([rows[step * BATCH_ROWS + i] for i in range(BATCH_ROWS)])
        assert np.asarray(batch.inputs_BT).shape == (BATCH_ROWS, 48)
        assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(batch, expected, strict=True))


@pytest.mark.parametrize("num_hosts", [2, 4, 8])
def test_batches_are_the_same_on_any_number_of_hosts(rows: Rows, num_hosts: int) -> None:
    hosts = [batches(rows, BATCH_ROWS, 2, host=part(i, num_hosts)) for i in range(num_hosts)]
    for whole in itertools.islice(batches(rows, BATCH_ROWS, 2), 3):
        parts = [next(host) for host in hosts]
        for i, array in enumerate(whole):
            joined = np.concatenate([np.asarray(part[i]) for part in parts])
            assert joined.tobytes() == np.asarray(array).tobytes()


@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_batches_do_not_depend_on_threads(rows: Rows, num_threads: int) -> None:
    assert read(rows, 12, num_threads=num_threads) == read(rows, 12, num_threads=0)


def test_resuming_is_starting_at_a_step(rows: Rows) -> None:
    through = read(rows, 8)
    assert read(rows, 3, start=5) == through[5:]
    assert len(read(rows, 1, start=1_000_000)) == 1


def test_arrays_have_the_types_of_the_batch(rows: Rows) -> None:
    batch = next(batches(rows, BATCH_ROWS))
    assert isinstance(batch, Batch)
    types = {name: np.asarray(array).dtype for name, array in zip(Batch._fields, batch, strict=True)}
    assert types.pop("weights_BT") == np.float32 and set(types.values()) == {np.dtype(np.int32)}


@pytest.mark.parametrize("shape", [(8, 1, 1, 1), (2, 2, 2, 1), (1, 2, 2, 2), (4, 1, 1, 2)])
def test_one_host_holds_all_rows_on_any_mesh(shape: tuple[int, ...]) -> None:
    mesh = jax.make_mesh(
        shape, ("data", "fsdp", "tensor", "sequence"), axis_types=(jax.sharding.AxisType.Auto,) * 4
    )
    sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), "sequence"))
    assert host_rows(sharding, 16) == tuple(range(16))


def test_a_host_may_hold_rows_that_do_not_lie_side_by_side(rows: Rows) -> None:
    whole, held = next(batches(rows, BATCH_ROWS, 2)), (0, 1, 4, 7)
    some = next(batches(rows, BATCH_ROWS, 2, host=lambda _: held))
    np.testing.assert_array_equal(some.inputs_BT, np.asarray(whole.inputs_BT)[list(held)])


def test_rows_that_do_not_divide_among_devices_are_refused() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(InputError, match="12 rows does not divide"):
        host_rows(NamedSharding(mesh, PartitionSpec("data", None)), 12)


def test_a_growing_batch_takes_every_row_once_on_any_number_of_hosts(rows: Rows) -> None:
    ramp = make_ramp(16, 4, 60, 3)
    sizes = [ramp.rows(step) for step in range(12)]
    assert len(set(sizes)) == 4 and sizes[-1] == 16
    whole = list(itertools.islice(batches(rows, ramp), 12))
    assert [len(np.asarray(batch.inputs_BT)) for batch in whole] == sizes
    inputs = np.concatenate([np.asarray(batch.inputs_BT) for batch in whole])
    expected = stack([rows[i] for i in range(sum(sizes))]).inputs_BT
    np.testing.assert_array_equal(inputs, expected)
    later = next(batches(rows, ramp, 9))
    np.testing.assert_array_equal(later.inputs_BT, whole[9].inputs_BT)
    hosts = [batches(rows, ramp, 2, host=part(i, 4)) for i in range(4)]
    for batch in whole[2:]:
        joined = np.concatenate([np.asarray(next(host).inputs_BT) for host in hosts])
        np.testing.assert_array_equal(joined, batch.inputs_BT)

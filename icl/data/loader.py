"""From rows to host batches: random access with grain, read ahead by threads or processes.

The batch of step s is rows [s x batch_rows, (s + 1) x batch_rows), or those that a ramp says, on any number
of hosts: a host reads the rows that its devices hold, which need not lie side by side. Resuming is starting
at another step; no iterator state is kept.
"""

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Protocol

import grain
import numpy as np
from absl import flags
from jax.sharding import NamedSharding, PartitionSpec

from icl.data.batch import Batch
from icl.data.ramp import Ramp, make_ramp
from icl.errors import InputError


class Addressed(Protocol):
    """Rows by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Batch:
        """Arrays [row_length]."""
        ...


class _HostBatches:
    """Random access by step to a host's rows of every batch."""

    def __init__(self, rows: Addressed, ramp: Ramp, held: Mapping[int, Sequence[int]]) -> None:
        self._rows = rows
        self._ramp = ramp
        self._held = held

    def __len__(self) -> int:
        return len(self._rows) // self._ramp.stages[-1].rows

    def __getitem__(self, step: int) -> Batch:
        first = self._ramp.first_row(int(step))
        return stack([self._rows[first + i] for i in self._held[self._ramp.rows(int(step))]])


def stack(rows: Sequence[Batch]) -> Batch:
    """Rows [row_length] as one batch [rows, row_length]."""
    return Batch(*(np.stack([np.asarray(array) for array in arrays]) for arrays in zip(*rows, strict=True)))


@functools.cache
def host_rows(sharding: NamedSharding, batch_rows: int) -> tuple[int, ...]:
    """The rows of a batch that this host's devices hold, in order.

    Args:
      sharding: of arrays [batch, length], `Partitioner.batch_sharding`.
      batch_rows: rows of the batch.

    Raises:
      InputError: the rows do not divide among the devices.
    """
    over_rows = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:1]))
    try:
        indices = over_rows.addressable_devices_indices_map((batch_rows,)).values()
    except ValueError as error:
        raise InputError(
            f"a batch of {batch_rows} rows does not divide among mesh {dict(sharding.mesh.shape)}"
        ) from error
    held = {row for index in indices if index is not None for row in range(*index[0].indices(batch_rows))}
    return tuple(sorted(held))


def batches(
    rows: Addressed,
    batch_rows: int | Ramp,
    start_step: int = 0,
    *,
    host: Callable[[int], Sequence[int]] | None = None,
    num_threads: int = 1,
    num_workers: int = 0,
    prefetch: int = 16,
) -> Generator[Batch, None, None]:
    """Batches [rows of the host, row_length] from step `start_step` on; close it when done.

    What is read never depends on the number of threads or workers.

    Args:
      rows: where they come from.
      batch_rows: rows of the global batch, or how they grow.
      start_step: step of the first batch.
      host: which rows of a batch of so many to read (`host_rows`); all by default.
      num_threads: threads that read ahead; 0 reads in the caller.
      num_workers: processes that read ahead, in place of threads; they take a few seconds to start. A script
        that asks for them needs the usual `if __name__ == "__main__":`.
      prefetch: batches kept ready by the threads, or by each worker.
    """
    ramp = make_ramp(batch_rows) if isinstance(batch_rows, int) else batch_rows
    held = {stage.rows: (host or range)(stage.rows) for stage in ramp.stages}
    source = _HostBatches(rows, ramp, held)
    threads = 0 if num_workers else num_threads
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch if threads else 0)
    dataset = grain.MapDataset.source(source)[start_step:].to_iter_dataset(options)
    if num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain reads its own flags, also where there is no absl app
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=prefetch)
        )
    iterator = iter(dataset)
    try:
        yield from iterator
    finally:
        iterator.close()

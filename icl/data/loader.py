"""From rows to host batches: random access with grain, prefetched by a thread.

The batch of step s is rows [s x batch_rows, (s + 1) x batch_rows), on any number of hosts: a host reads the
rows its devices hold. Resuming is starting at another step; no iterator state is kept.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import grain
import jax
import numpy as np

from icl.data.batch import Batch
from icl.data.rows import Rows
from icl.errors import InputError, check_types


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
    """Reading: `num_threads` 0 reads in the caller, else ahead of it; `prefetch` batches are kept ready."""

    num_threads: int = 1
    prefetch: int = 4

    def __post_init__(self) -> None:
        check_types(self)
        if self.num_threads < 0 or self.prefetch < 1:
            raise InputError(f"{self}: expected 0 or more threads and a prefetch of at least 1 batch")


class _HostBatches:
    """Random access to a host's part of every step's batch."""

    def __init__(self, rows: Rows, batch_rows: int, host: slice) -> None:
        self._rows = rows
        self._batch_rows = batch_rows
        self._host = host

    def __len__(self) -> int:
        return len(self._rows) // self._batch_rows

    def __getitem__(self, step: int) -> Batch:
        first = int(step) * self._batch_rows
        return stack([self._rows[first + i] for i in range(self._host.start, self._host.stop)])


def stack(rows: Sequence[Batch]) -> Batch:
    """Rows [row_length] as one batch [rows, row_length]."""
    return Batch(*(np.stack(arrays) for arrays in zip(*rows, strict=True)))


def host_rows(sharding: jax.sharding.Sharding, batch_rows: int) -> slice:
    """The rows of a batch that this host's devices hold under a sharding of [batch, length].

    Raises:
      InputError: the rows do not divide among the devices, or are not contiguous on this host.
    """
    shape = (batch_rows, 1)
    try:
        spec = (
            jax.sharding.PartitionSpec(*sharding.spec[:1])
            if isinstance(sharding, jax.NamedSharding)
            else None
        )
        if spec is not None:
            sharding = jax.NamedSharding(sharding.mesh, spec)
        indices = sharding.addressable_devices_indices_map(shape).values()
    except ValueError as error:
        raise InputError(f"{batch_rows} rows of a batch do not divide among the devices: {error}") from error
    held = sorted({index[0].indices(batch_rows)[:2] for index in indices if index is not None})
    if any(stop != start for (_, stop), (start, _) in zip(held[:-1], held[1:], strict=True)):
        raise InputError(
            f"this host's devices hold the rows {held} of a batch; expected one contiguous range"
        )
    return slice(held[0][0], held[-1][1])


def batches(
    rows: Rows,
    batch_rows: int,
    start_step: int = 0,
    *,
    host: slice | None = None,
    loader: LoaderConfig | None = None,
) -> Iterator[Batch]:
    """Batches [rows of the host, row_length] from step `start_step` on.

    Args:
      rows: where they come from.
      batch_rows: rows of the global batch.
      start_step: step of the first batch.
      host: the rows of the batch to read (`host_rows`); all by default.
      loader: threads and prefetch; what is read never depends on them.
    """
    loader = loader or LoaderConfig()
    host = slice(0, batch_rows) if host is None else host
    dataset = grain.MapDataset.source(_HostBatches(rows, batch_rows, host))[start_step:]
    options = grain.ReadOptions(
        num_threads=loader.num_threads, prefetch_buffer_size=loader.prefetch if loader.num_threads else 1
    )
    return iter(dataset.to_iter_dataset(options))

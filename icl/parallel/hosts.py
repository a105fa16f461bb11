"""Several hosts: how they find each other, and what they have to agree on before they compute together.

A host is one process. JAX's coordination service runs on the first one; it notices a host that died, and
stops the others, `HEARTBEAT_SECONDS` after its last sign of life.
"""

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from icl.errors import InputError

HEARTBEAT_SECONDS = 30
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_LAUNCHERS = {
    "SLURM": ("SLURM_NTASKS", "SLURM_PROCID"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "MPI": ("PMI_SIZE", "PMI_RANK"),
}
"""Where launchers put the number of processes and a process's own."""
_SLURM_STEP = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")


class Start(NamedTuple):
    """How to join the other hosts; what is None, JAX finds by `method` (None: any it knows).

    `surely` is False where there may be no other hosts: then not finding any is no error.
    """

    coordinator: str | None = None
    num_hosts: int | None = None
    host: int | None = None
    local_devices: tuple[int, ...] | None = None
    method: str | None = None
    surely: bool = True


def find_start(
    coordinator: str | None,
    num_hosts: int | None,
    host: int | None,
    environ: Mapping[str, str],
    *,
    on_tpu: bool = False,
) -> Start | None:
    """How this process is to join others, from flags, else from what launchers set; None: it is alone.

    Args:
      coordinator: "host:port" of the first host, from the command line; None to look at the environment.
      num_hosts: how many hosts there are; from the launcher where None.
      host: which this is, from 0; from the launcher where None.
      environ: the environment's variables.
      on_tpu: whether this machine has TPUs and JAX can use them.

    Raises:
      InputError: what is said is incomplete, or no number, or out of range.
    """
    said = ("--coordinator", "--num_hosts", "--host")
    if coordinator is None and num_hosts is None and host is None and _VARIABLES[0] in environ:
        coordinator, said = environ[_VARIABLES[0]], _VARIABLES
        num_hosts, host = (_number(environ, name) for name in _VARIABLES[1:])
    if coordinator is not None or num_hosts is not None or host is not None:
        size_and_rank = next((names for names in _LAUNCHERS.values() if names[0] in environ), None)
        if size_and_rank is not None:
            num_hosts, host = (
                _number(environ, name) if value is None else value
                for name, value in zip(size_and_rank, (num_hosts, host), strict=True)
            )
        return _explicit(coordinator, num_hosts, host, said)
    if (_number(environ, "SLURM_NTASKS") or 1) > 1 and all(name in environ for name in _SLURM_STEP):
        return Start(local_devices=_devices_of_a_node(environ), method="slurm")
    if (_number(environ, "OMPI_COMM_WORLD_SIZE") or 1) > 1:
        if "OMPI_MCA_orte_hnp_uri" not in environ:
            raise InputError(
                "Open MPI started several processes but does not say where the first one is: add"
                " --coordinator HOST:PORT, the rest comes from Open MPI"
            )
        return Start(method="ompi")
    if environ.get("JAX_PLATFORMS", "").startswith(("cpu", "cuda")):
        return None
    many = "," in environ.get("TPU_WORKER_HOSTNAMES", "") or "MEGASCALE_COORDINATOR_ADDRESS" in environ
    # A machine with TPUs may be one of several, and knows it from a server unless told not to ask.
    may_be_one_of_many = on_tpu and "TPU_SKIP_MDS_QUERY" not in environ
    return Start(surely=many) if many or may_be_one_of_many else None


def join(start: Start, *, notices_sigterm: bool) -> None:
    """Waits until all hosts have come; before anything else is asked of JAX.

    Args:
      start: how.
      notices_sigterm: JAX takes SIGTERM, for `stop_requested`, in place of the process.

    Raises:
      InputError: the hosts do not find each other.
    """
    jax.config.update("jax_enable_preemption_service", notices_sigterm)
    try:
        jax.distributed.initialize(
            start.coordinator,
            start.num_hosts,
            start.host,
            start.local_devices,
            cluster_detection_method="deactivate" if start.coordinator else start.method,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        if not start.surely:
            return
        where = start.coordinator or "what the launcher says"
        raise InputError(f"could not join the other hosts by {where}: {str(error)[:300]}") from error


def stop_requested(step: int) -> bool:
    """Whether all hosts are to stop after `step`, since one got SIGTERM; all get the same answer.

    Every host asks once a step.
    """
    return bool(multihost_utils.reached_preemption_sync_point(step))


def from_first(numbers: np.ndarray) -> np.ndarray:
    """The first host's numbers, on every host; each gives an array of the same shape and type."""
    if jax.process_count() == 1:
        return numbers
    return np.asarray(multihost_utils.broadcast_one_to_all(numbers))


def wait_for_all(what: str) -> None:
    """Returns when every host has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def check_agreement(texts: Mapping[str, str]) -> None:
    """Whether all hosts have the same texts; the keys name them, and are the same on every host.

    Raises:
      InputError: on every host, where any two differ; names the first such text and host.
    """
    if jax.process_count() == 1:
        return
    sums = np.array([zlib.crc32(text.encode()) for text in texts.values()], np.uint32)
    by_host: Any = multihost_utils.process_allgather(sums)
    for name, sums_H in zip(texts, np.asarray(by_host).T, strict=True):
        others = np.flatnonzero(sums_H != sums_H[0])
        if len(others):
            raise InputError(f"host {others[0]} has another {name} than host 0: start all hosts alike")


def _explicit(coordinator: str | None, num_hosts: int | None, host: int | None, said: Any) -> Start:
    for name, value in zip(said, (coordinator, num_hosts, host), strict=True):
        if value is None:
            raise InputError(f"{name} is missing: several hosts need {', '.join(said)}")
    assert coordinator is not None and num_hosts is not None and host is not None
    address, colon, port = coordinator.rpartition(":")
    if not (address and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise InputError(f"{said[0]} {coordinator}: expected HOST:PORT of host 0")
    if num_hosts < 1:
        raise InputError(f"{said[1]} {num_hosts}: expected a positive number")
    if not 0 <= host < num_hosts:
        raise InputError(f"{said[2]} {host}: expected one of 0 to {num_hosts - 1}")
    return Start(coordinator, num_hosts, host)


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if text is not None and not text.isdecimal():
        raise InputError(f"{name}={text} in the environment: expected a number")
    return None if text is None else int(text)


def _devices_of_a_node(environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """All GPUs of the node where SLURM runs one task on it; JAX would take one GPU a task."""
    alone = environ.get("SLURM_STEP_TASKS_PER_NODE", "").split("(")[0] == "1"
    count = _number(environ, "SLURM_GPUS_ON_NODE")
    return tuple(range(count)) if alone and count else None

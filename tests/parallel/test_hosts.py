"""How a process finds the hosts it belongs to."""

from typing import Any

import pytest

from icl.errors import InputError
from icl.parallel.hosts import Start, find_start

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-4]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
    "SLURM_GPUS_ON_NODE": "8",
}
VARIABLES = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}


def found(*flags: Any, environ: dict[str, str]) -> Start | None:
    coordinator, num_hosts, host = flags or (None, None, None)
    return find_start(coordinator, num_hosts, host, {"JAX_PLATFORMS": "cpu"} | environ)


def test_a_process_that_nobody_speaks_of_is_alone() -> None:
    assert found(environ={}) is None


def test_flags_are_taken_before_variables_and_variables_before_launchers() -> None:
    assert found("b:2", 3, 2, environ=VARIABLES | SLURM) == Start("b:2", 3, 2)
    assert found(environ=VARIABLES | SLURM) == Start("a:1", 2, 1)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [(SLURM, (4, 3)), (OPEN_MPI, (2, 1)), ({"PMI_SIZE": "8", "PMI_RANK": "5"}, (8, 5))],
)
def test_a_coordinator_alone_is_enough_under_a_launcher(environ: dict[str, str], expected: Any) -> None:
    assert found("b:2", None, None, environ=environ) == Start("b:2", *expected)


def test_one_slurm_task_on_a_node_takes_all_of_its_gpus() -> None:
    assert found(environ=SLURM) == Start(local_devices=tuple(range(8)), method="slurm")
    many = SLURM | {"SLURM_STEP_TASKS_PER_NODE": "8(x4)"}
    assert found(environ=many) == Start(method="slurm")


@pytest.mark.parametrize("missing", ["SLURM_STEP_NODELIST", "SLURM_PROCID"])
def test_a_batch_script_without_srun_is_alone(missing: str) -> None:
    assert found(environ={name: value for name, value in SLURM.items() if name != missing}) is None
    assert found(environ=SLURM | {"SLURM_NTASKS": "1"}) is None


def test_a_tpu_pod_is_joined_by_what_it_says_itself() -> None:
    names = {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}
    assert find_start(None, None, None, names) == Start()
    assert find_start(None, None, None, {"MEGASCALE_COORDINATOR_ADDRESS": "a"}) == Start()
    assert find_start(None, None, None, {}, on_tpu=True) == Start(surely=False)
    assert find_start(None, None, None, {"TPU_SKIP_MDS_QUERY": "1"}, on_tpu=True) is None
    assert found(environ=names) is None  # On its CPUs a host of the pod is alone.


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (("a:1", 2, None), {}, "--host is missing"),
        ((None, 2, 0), {}, "--coordinator is missing"),
        (("a", 2, 0), {}, "--coordinator a: expected HOST:PORT"),
        (("a:99999", 2, 0), {}, "--coordinator a:99999: expected HOST:PORT"),
        (("a:1", 0, 0), {}, "--num_hosts 0"),
        (("a:1", 2, 2), {}, "--host 2: expected one of 0 to 1"),
        ((), VARIABLES | {"JAX_PROCESS_ID": "x"}, "JAX_PROCESS_ID=x in the environment"),
        ((), {"JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_NUM_PROCESSES is missing"),
        ((), OPEN_MPI, "add --coordinator"),
    ],
)
def test_what_is_incomplete_is_refused_by_name(arguments: Any, environ: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        found(*arguments, environ=environ)

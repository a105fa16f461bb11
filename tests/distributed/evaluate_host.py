"""One host of an evaluation by several: started as a process of its own by the test beside it."""

import sys
from pathlib import Path

import jax

from icl.evaluation.config import EvalConfig
from icl.evaluation.runner import evaluate
from icl.parallel import MeshConfig
from icl.parallel.hosts import Start, join


def main(port: str, hosts: str, host: str, run: str, output_dir: str) -> None:
    """Evaluates a run on a mesh of two devices a host."""
    jax.config.update("jax_num_cpu_devices", 2)
    join(Start(f"127.0.0.1:{port}", int(hosts), int(host)), notices_sigterm=False)
    config = EvalConfig(ks=(0, 2), queries=5, seeds=1, batch_rows=8, bootstrap=100, instruction=(False,))
    results = evaluate([run], config, Path(output_dir), mesh=MeshConfig(fsdp=2))
    assert bool(results) == (jax.process_index() == 0)


if __name__ == "__main__":
    main(*sys.argv[1:])

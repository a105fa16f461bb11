"""The flags of a binary that runs on several hosts."""

import os

from absl import flags

from icl import last_words
from icl.tpus import has_tpu, has_tpu_compiler

_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first of several hosts; TPU pods and SLURM say it themselves."
)
_NUM_HOSTS = flags.DEFINE_integer("num_hosts", None, "How many hosts there are; each runs this command.")
_HOST = flags.DEFINE_integer("host", None, "Which host this is, from 0.")


def join_hosts(*, notices_sigterm: bool = False) -> None:
    """Joins the other hosts, if flags or environment tell of any; before anything else is asked of JAX.

    `notices_sigterm`: as for `icl.parallel.hosts.join`.
    """
    from icl.parallel.hosts import find_start, join

    on_tpu = has_tpu() and has_tpu_compiler()
    start = find_start(_COORDINATOR.value, _NUM_HOSTS.value, _HOST.value, os.environ, on_tpu=on_tpu)
    if start is not None:
        last_words.prepare()
        join(start, notices_sigterm=notices_sigterm)

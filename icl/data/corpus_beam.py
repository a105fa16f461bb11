"""Shares the pieces of a corpus among workers of an Apache Beam pipeline, for preparation on a cluster.

Needs the extra `beam`. The cache's folder, and the sources, must be where all workers see them. A worker
leaves its result in that folder as a file, from which the command that started the pipeline reads it.
"""

import contextlib
import json
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from icl.errors import InputError

Run = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterator[tuple[int, Any]]]


@contextlib.contextmanager
def beam_workers(folder: Path, options: str, call: Callable[..., Any]) -> Iterator[Run]:
    """Runs a function over lists of arguments, one pipeline each time.

    Args:
      folder: One that all workers see; results lie there for the time being.
      options: Of the pipeline, as on a command line: `--runner=DirectRunner --direct_num_workers=2`.
      call: Is given the function and its arguments, in a worker; returns what JSON can hold.

    Raises:
      InputError: Apache Beam is not installed, or an option is unknown to it.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(f"--beam needs the extra `beam`: pip install 'icl[beam]' ({error})") from error
    results = folder / "beam"

    def run(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir()
        try:
            pipeline = beam.Pipeline(options=PipelineOptions(shlex.split(options)))
        except ValueError as error:
            raise InputError(f"--beam={options!r}: {str(error).splitlines()[0]}") from error
        with pipeline:
            numbered = pipeline | beam.Create(list(enumerate(tasks))) | beam.Reshuffle()
            _ = numbered | beam.Map(_work, call, function, str(results))
        for number in range(len(tasks)):
            found = json.loads((results / f"{number}.json").read_text())
            if "error" in found:
                raise InputError(found["error"])
            yield number, found["result"]
        shutil.rmtree(results)

    try:
        yield run
    finally:
        shutil.rmtree(results, ignore_errors=True)


def _work(
    numbered: tuple[int, tuple[Any, ...]], call: Callable[..., Any], function: Any, results: str
) -> None:
    """One task in a worker. What a user must be told is a result too; any other error is Beam's to retry."""
    number, task = numbered
    try:
        found = {"result": call(function, *task)}
    except InputError as error:
        found = {"error": str(error)}
    beside = Path(results) / f"{number}.tmp"
    beside.write_text(json.dumps(found))
    beside.replace(Path(results) / f"{number}.json")

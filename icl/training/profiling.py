"""A profile of a few steps: a trace for TensorBoard or Perfetto, and where the time went as a short table."""

import collections
import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

FIRST_STEP, NUM_STEPS = 3, 5
"""Steps after a start that are traced: not those that still fill caches."""

_PARTS = (
    ("optimizer", "optimizer"),
    ("loss", "loss"),
    ("embedding", "embedding"),
    ("/attention/", "attention"),
    ("/mlp/", "MLP"),
    ("norm", "norms"),
)
"""What the name of an operation holds, and the part of the step it then belongs to; the first that fits."""
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = ")
_NAME = re.compile(r'op_name="([^"]*)"')
_CALLED = re.compile(r"calls=%?([\w.\-]+)")


class Profiler:
    """Traces steps `FIRST_STEP` to `FIRST_STEP + NUM_STEPS - 1` of a start; does nothing without a folder."""

    def __init__(self, folder: Path | None, start: int) -> None:
        self._folder = folder
        self._first = start + FIRST_STEP
        self._running = False

    def before(self, step: int, state: Any) -> None:
        """Begins the trace, if this step is its first."""
        if self._folder is not None and step == self._first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, step: int, state: Any, program: Any, *, is_last: bool) -> str | None:
        """Ends the trace, if this step is its last; says where the time went in the steps of `program`."""
        if not self._running or (step < self._first + NUM_STEPS - 1 and not is_last):
            return None
        jax.block_until_ready(state)
        jax.profiler.stop_trace()
        self._running = False
        assert self._folder is not None
        parts = parts_of(program.as_text())
        return f"a profile is in {self._folder}\n{table(self._folder, step - self._first + 1, parts)}"


def table(folder: Path, steps: int, parts: Mapping[str, str]) -> str:
    """Milliseconds of processors or devices a step by part, the longest first, of a folder's newest trace.

    Args:
      folder: where the profiler wrote.
      steps: how many were traced.
      parts: operation -> part of the step (`parts_of`).
    """
    traces = sorted(folder.glob("**/*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
    if not traces:
        return "no trace was written"
    with gzip.open(traces[-1], "rt", encoding="utf-8") as file:
        by_operation = seconds_by_operation(json.load(file)["traceEvents"])
    spent: dict[str, float] = collections.defaultdict(float)
    for operation, seconds in by_operation.items():
        spent[parts.get(operation, f"other ({re.sub('[.0-9]+$', '', operation)})")] += seconds
    total = sum(spent.values()) or 1.0
    lines = [f"{'ms a step':>10} {'share':>6}"]
    for part, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        if seconds / total >= 0.005:
            lines.append(f"{seconds * 1e3 / steps:10.2f} {seconds / total:6.1%}  {part}")
    return "\n".join(lines)


def seconds_by_operation(events: list[dict[str, Any]]) -> dict[str, float]:
    """Sums the durations of a trace's operations; one that holds others of its thread counts without them."""
    by_thread = collections.defaultdict(list)
    for event in events:
        if event.get("ph") == "X" and "hlo_op" in event.get("args", {}):
            by_thread[event["pid"], event["tid"]].append(event)
    spent: dict[str, float] = collections.defaultdict(float)
    for thread in by_thread.values():
        around: list[tuple[float, str]] = []
        for event in sorted(thread, key=lambda event: (event["ts"], -event["dur"])):
            while around and around[-1][0] <= event["ts"]:
                around.pop()
            if around:
                spent[around[-1][1]] -= event["dur"] / 1e6
            name = event["args"]["hlo_op"]
            spent[name] += event["dur"] / 1e6
            around.append((event["ts"] + event["dur"], name))
    return dict(spent)


def parts_of(program: str) -> dict[str, str]:
    """Operation -> part of the step, such as "attention, backward", from the text of a compiled program.

    A fusion belongs to the part that most of what it fuses belongs to.
    """
    found, counts, inside = (
        {},
        collections.defaultdict[str, collections.Counter[str]](collections.Counter),
        "",
    )
    fusions = []
    for line in program.splitlines():
        if line.endswith("{") and (computation := _COMPUTATION.match(line)):
            inside = computation[1]
        elif instruction := _INSTRUCTION.match(line):
            name = _NAME.search(line)
            part = _part(name[1]) if name else None
            if part is not None:
                found[instruction[1]] = part
                counts[inside][part] += 1
            if called := _CALLED.search(line):
                fusions.append((instruction[1], called[1]))
    for operation, computation_name in fusions:
        if counts[computation_name]:
            found[operation] = counts[computation_name].most_common(1)[0][0]
    return found


def _part(name: str) -> str | None:
    part = next((part for text, part in _PARTS if text in name.lower()), None)
    return f"{part}, backward" if part is not None and "transpose(" in name else part

"""A profile tells where the time of a step goes."""

from typing import Any

import pytest

from icl.training.profiling import parts_of, seconds_by_operation

PROGRAM = """\
HloModule jit_train_step

%fused (p: f32[2]) -> f32[2] {
  %p = f32[2] parameter(0)
  %m = f32[2] multiply(%p, %p), metadata={op_name="jit(train_step)/transpose(jvp())/Block/mlp/mul"}
  %n = f32[2] add(%m, %m), metadata={op_name="jit(train_step)/transpose(jvp())/Block/mlp/add"}
  ROOT %a = f32[2] add(%n, %m), metadata={op_name="jit(train_step)/jvp()/Block/attention/add"}
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %x = f32[2] parameter(0)
  %fusion.1 = f32[2] fusion(%x), kind=kLoop, calls=%fused
  %dot.2 = f32[2] dot(%x, %x), metadata={op_name="jit(train_step)/jvp()/Block/attention/dot_general"}
  ROOT %add.3 = f32[2] add(%dot.2, %fusion.1), metadata={op_name="jit(train_step)/optimizer/add"}
}
"""


def test_operations_belong_to_parts_of_the_step_and_fusions_to_the_part_of_most_in_them() -> None:
    parts = parts_of(PROGRAM)
    assert parts["dot.2"] == "attention"
    assert parts["fusion.1"] == "MLP, backward"
    assert parts["add.3"] == "optimizer"
    assert "x" not in parts


def test_an_operation_counts_without_those_inside_it() -> None:
    def event(name: str, start: float, duration: float, thread: int = 1) -> dict[str, Any]:
        return {"ph": "X", "pid": 1, "tid": thread, "ts": start, "dur": duration, "args": {"hlo_op": name}}

    events = [
        event("while", 0, 100),
        event("call", 10, 50),
        event("dot", 20, 30),
        event("dot", 70, 20),
        event("dot", 0, 5, thread=2),
        {"ph": "X", "pid": 1, "tid": 1, "ts": 0, "dur": 1000, "args": {}},
    ]
    spent = seconds_by_operation(events)
    assert spent == pytest.approx({"while": 30e-6, "call": 20e-6, "dot": 55e-6})

"""A plan as text and as JSON."""

from typing import Any

from icl.planner.compiling import Plan
from icl.planner.memory import GIB, SAFE_SHARE
from icl.planner.roofline import Roofline, roofline

_DAY = 86_400.0


def plan_text(plan: Plan) -> str:
    """The plan in lines for a terminal."""
    memory, topology = plan.memory, plan.topology
    mesh = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    lines = [
        f"run           {plan.name}: {plan.params:,} parameters, {plan.tokens:,} tokens a step"
        f" in {plan.run.train.accumulation_steps} microbatch(es), remat {plan.run.model.remat},"
        f" attention {plan.attention}",
        f"devices       {topology.name}: {topology.num_chips} x {topology.chip.name}; mesh {mesh}",
        f"a chip        {_gib(memory.total)} of {_gib(memory.capacity)} ({memory.share:.0%}):"
        f" {_verdict(plan)}",
    ]
    for name, size in memory.parts.items():
        estimate = (
            " (estimated from shapes: no compiler)" if name == "temporaries" and memory.is_estimate else ""
        )
        lines.append(f"  {name:12}{_gib(size):>12}{estimate}")
    lines.append(f"  {'headroom':12}{_gib(memory.headroom):>12}")
    if not memory.fits or memory.share > SAFE_SHARE:
        lines += [
            f"  largest     {_gib(piece.bytes):>12} {piece.arrays[:80]}" for piece in memory.largest[:5]
        ]
    share = plan.attention_flops / plan.model_flops
    lines.append(
        f"FLOPs         {plan.model_flops:.3g} of the model a step over all chips, attention {share:.0%}"
    )
    if plan.program is not None:
        lines += _program_lines(plan)
    return "\n".join(lines)


def _program_lines(plan: Plan) -> list[str]:
    program = plan.program
    assert program is not None
    lines = [
        f"collectives   {kind} {total.count:,} times, {_gib(total.bytes)} a chip and step"
        for kind, total in program.totals().items()
    ]
    if program.unknown_loops:
        lines.append(f"              loops of unknown length, counted once: {len(program.unknown_loops)}")
    time = plan_roofline(plan)
    if time is not None:
        lines += [
            f"step          {time.least:.3g} to {time.most:.3g} s (roofline: matmuls {time.compute:.3g} s,"
            f" transfers {time.transfer:.3g} s; hidden or not; both at peak)",
            f"speed         {plan.tokens / time.most:,.0f} to {plan.tokens / time.least:,.0f} tokens/s,"
            f" MFU at most {model_flops_utilisation(plan, time.least):.0%}",
        ]
        if plan.total_tokens:
            days = plan.total_tokens / plan.tokens / _DAY
            lines.append(
                f"whole run     {plan.total_tokens:,} tokens: at least {days * time.least:.3g} days"
                f" ({days * time.most:.3g} with nothing hidden)"
            )
    lines.append(f"compiled in   {plan.seconds:.0f} s")
    return lines


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as a JSON object; sizes in bytes of one chip, times in seconds."""
    memory, time = plan.memory, plan_roofline(plan)
    program = plan.program
    return {
        "name": plan.name,
        "topology": plan.topology.name,
        "chips": plan.topology.num_chips,
        "mesh": plan.mesh,
        "params": plan.params,
        "attention": plan.attention,
        "remat": plan.run.model.remat,
        "accumulation_steps": plan.run.train.accumulation_steps,
        "batch_tokens": plan.tokens,
        "fits": memory.fits,
        "bytes": memory.parts | {"total": memory.total, "capacity": memory.capacity},
        "share": memory.share,
        "is_estimate": memory.is_estimate,
        "largest": [{"bytes": piece.bytes, "arrays": piece.arrays} for piece in memory.largest],
        "model_flops": plan.model_flops,
        "attention_flops": plan.attention_flops,
        "collectives": {
            kind: {"count": total.count, "bytes": total.bytes}
            for kind, total in (program.totals() if program else {}).items()
        },
        "custom_calls": dict(program.custom_calls) if program else {},
        "unknown_loops": list(program.unknown_loops) if program else [],
        "step_seconds": {"least": time.least, "most": time.most} if time else None,
        "compile_seconds": plan.seconds,
    }


def plan_roofline(plan: Plan) -> Roofline | None:
    """The roofline of a plan that was compiled."""
    if plan.program is None:
        return None
    topology = plan.topology
    return roofline(topology.chip, topology.num_chips, plan.program, plan.attention_flops)


def model_flops_utilisation(plan: Plan, seconds: float) -> float:
    """Share of the peak that the model's FLOPs are, in a step of so many seconds."""
    return plan.model_flops / (seconds * (plan.topology.chip.flops or 1.0) * plan.topology.num_chips)


def _verdict(plan: Plan) -> str:
    if not plan.memory.fits:
        return "does not fit"
    return (
        "fits" if plan.memory.share <= SAFE_SHARE else f"fits, but above the {SAFE_SHARE:.0%} that are safe"
    )


def _gib(size: float) -> str:
    for unit, name in ((GIB, "GiB"), (2**20, "MiB")):
        if abs(size) >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size / 2**10:.2f} KiB"

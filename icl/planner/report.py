"""A plan as text and as JSON, and the ranking that a search found."""

from collections.abc import Sequence
from typing import Any

from icl.planner.compiling import Plan
from icl.planner.memory import GIB, SAFE_SHARE
from icl.planner.roofline import model_flops_utilisation, plan_roofline
from icl.planner.search import gin_lines
from icl.planner.slices import bytes_to_other_slices
from icl.progress import duration

_SHOWN = 5
_RESOURCES = {"compute": "matmuls", "memory": "HBM", "transfer": "links", "network": "network"}


def plan_text(plan: Plan) -> str:
    """The plan in lines for a terminal."""
    memory, topology = plan.memory, plan.topology
    mesh = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    slices = f" in {topology.slices} slices" if topology.slices > 1 else ""
    chips = f"{topology.num_chips} x {topology.chip.name}{slices}"
    return "\n".join(
        [
            f"run           {plan.name}: {plan.params:,} parameters, {_work(plan)},"
            f" attention {plan.attention}",
            f"devices       {topology.name}: {chips}; mesh {mesh}",
            f"a chip        {_size(memory.total)} of {_size(memory.capacity)} ({memory.share:.0%}):"
            f" {_verdict(plan)}",
            *_memory_lines(plan),
            f"model FLOPs   {plan.model_flops:.3g} a step over all chips, of which attention"
            f" {plan.attention_flops / plan.model_flops:.0%}",
            *_collective_lines(plan),
            *_time_lines(plan),
            *([f"compiled in   {duration(plan.seconds)}"] if plan.seconds else []),
        ]
    )


def ranking_text(plans: Sequence[Plan]) -> str:
    """What a search found, a line a plan, and how to set the first."""
    lines = [f"{'':4}{'mesh':32}{'remat':8}{'microbatches':14}{'a chip':22}step"]
    for number, plan in enumerate(plans, 1):
        memory, time = plan.memory, plan_roofline(plan)
        step = f"{duration(time.least)} to {duration(time.most)}" if time else "unknown"
        lines.append(
            f"{number:<4}{plan.mesh_text:32}{plan.run.model.remat:8}{plan.run.train.accumulation_steps:<14}"
            f"{f'{_size(memory.total)} ({memory.share:.0%})':22}{step if memory.fits else _verdict(plan)}"
        )
    if plans[0].memory.fits:
        lines += ["", "the first as gin:", *(f"  {line}" for line in gin_lines(plans[0].run))]
    return "\n".join(lines)


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as a JSON object; sizes in bytes of one chip, times in seconds."""
    memory, time, chip = plan.memory, plan_roofline(plan), plan.topology.chip
    program = plan.program
    return {
        "name": plan.name,
        "kind": "evaluation" if plan.is_evaluation else "training",
        "topology": plan.topology.name,
        "chips": plan.topology.num_chips,
        "slices": plan.topology.slices,
        "chip": {
            "name": chip.name,
            "memory": chip.memory,
            "flops": chip.flops,
            "bandwidth": chip.bandwidth,
            "link": chip.link,
            "network": chip.network,
            "source": chip.source,
        },
        "mesh": plan.mesh,
        "params": plan.params,
        "attention": plan.attention,
        "remat": plan.run.model.remat,
        "accumulation_steps": plan.run.train.accumulation_steps,
        "batch_tokens": plan.tokens,
        "gin": gin_lines(plan.run),
        "fits": memory.fits,
        "bytes": memory.parts
        | {"total": memory.total, "capacity": memory.capacity, "headroom": memory.headroom},
        "share": memory.share,
        "is_estimate": memory.is_estimate,
        "largest": [{"bytes": piece.bytes, "arrays": piece.arrays} for piece in memory.largest],
        "model_flops": plan.model_flops,
        "attention_flops": plan.attention_flops,
        "collectives": {
            kind: {"count": total.count, "bytes": total.bytes}
            for kind, total in (program.totals() if program else {}).items()
        },
        "bytes_between_slices": bytes_to_other_slices(program.module) if program else None,
        "custom_calls": dict(program.custom_calls) if program else {},
        "unknown_loops": list(program.unknown_loops) if program else [],
        "step_seconds": {"least": time.least, "most": time.most} | time.parts if time else None,
        "mfu_at_most": model_flops_utilisation(plan, time.least) if time else None,
        "compile_seconds": plan.seconds,
    }


def _work(plan: Plan) -> str:
    if plan.is_evaluation:
        length = plan.run.data.row_length
        return f"reads {plan.tokens // length:,} prompts of {length:,} tokens into a KV cache"
    return (
        f"{plan.tokens:,} tokens a step in {plan.run.train.accumulation_steps} microbatch(es),"
        f" remat {plan.run.model.remat}"
    )


def _memory_lines(plan: Plan) -> list[str]:
    memory = plan.memory
    notes = {"temporaries": "  (estimated from shapes, without a compiler)"} if memory.is_estimate else {}
    if memory.is_refused:
        notes = {"temporaries": "  (with code; the compiler stopped here)"}
    parts = memory.parts
    if memory.is_estimate or memory.is_refused:
        parts = {name: size for name, size in parts.items() if name not in ("code", "outputs")}
    lines = [f"  {name:12}{_size(size):>12}{notes.get(name, '')}" for name, size in parts.items()]
    lines.append(f"  {'headroom':12}{_size(memory.headroom):>12}")
    if memory.fits and memory.share <= SAFE_SHARE:
        return lines
    shown = [f"  {_size(piece.bytes):>24}  {_short(piece.arrays)}" for piece in memory.largest[:_SHOWN]]
    return [*lines, *(["  the largest temporaries:"] if shown else []), *shown]


def _collective_lines(plan: Plan) -> list[str]:
    program = plan.program
    if program is None:
        return []
    rows = [
        f"{kind}: {total.count:,} times, {_size(total.bytes)}" for kind, total in program.totals().items()
    ]
    if plan.topology.slices > 1:
        rows.append(f"between slices: {_size(bytes_to_other_slices(program.module))}")
    if program.unknown_loops:
        rows.append(f"loops of unknown length, counted once: {len(program.unknown_loops)}")
    rows = rows or ["none"]
    return [f"{'collectives' if not i else '':14}{row}" for i, row in enumerate(rows)]


def _time_lines(plan: Plan) -> list[str]:
    time = plan_roofline(plan)
    if not plan.memory.fits:
        return []
    if time is None:
        return [f"step          unknown: no speed is known of a {plan.topology.chip.name}"]
    parts = ", ".join(
        f"{_RESOURCES[name]} {duration(seconds)}" for name, seconds in time.parts.items() if seconds
    )
    basis = ", from shapes" if time.is_estimate else ""
    lines = [
        f"step          {duration(time.least)} to {duration(time.most)} (roofline{basis}: all at once, or one"
        " after the other)",
        f"              {parts}; each at the peak of {plan.topology.chip.source}",
        f"speed         {plan.tokens / time.most:,.0f} to {plan.tokens / time.least:,.0f} tokens/s,"
        f" MFU at most {model_flops_utilisation(plan, time.least):.0%}",
    ]
    if plan.topology.slices > 1 and plan.topology.chip.network is None:
        lines.append(
            f"              the network between slices of {plan.topology.chip.name} is left out: no figure is"
            " published"
        )
    if not plan.is_evaluation:
        steps = plan.total_tokens / plan.tokens
        lines.append(
            f"whole run     {plan.total_tokens:,} tokens: {duration(steps * time.least)} to"
            f" {duration(steps * time.most)}"
        )
    return lines


def _verdict(plan: Plan) -> str:
    if not plan.memory.fits:
        return "does not fit"
    if plan.memory.share <= SAFE_SHARE:
        return "fits"
    return f"fits, but above the {SAFE_SHARE:.0%} that are safe"


def _short(text: str, width: int = 72) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _size(size: float) -> str:
    for unit, name in ((GIB, "GiB"), (2**20, "MiB")):
        if abs(size) >= unit:
            return f"{size / unit:,.2f} {name}"
    return f"{size / 2**10:.2f} KiB"

"""The reader of compiled programs, on text with known answers."""

import pytest

from icl.errors import InputError
from icl.planner.hlo import Program, Total, read_hlo
from icl.planner.hlo_text import Array

REDUCER = """
%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.0 = f32[] add(%a, %b)
}
"""


def program(entry: str, *computations: str) -> Program:
    """Reads a module of eight devices: an entry with the parameter `%x = f32[4,8]`, and what it calls."""
    header = "HloModule jit_f, is_scheduled=true, num_partitions=8\n"
    body = f"ENTRY %main (x: f32[4,8]) -> f32[4,8] {{\n  %x = f32[4,8]{{1,0}} parameter(0)\n{entry}\n}}\n"
    return read_hlo("\n".join([header, REDUCER, *computations, body]))


def loop(
    name: str,
    body: str,
    *,
    limit: int,
    step: int = 1,
    direction: str = "LT",
    flipped: bool = False,
) -> str:
    """A body and a condition that count element 0 of (s32[], f32[4,8]) up to a limit; `%h` is the array."""
    operands = "%n, %i" if flipped else "%i, %n"
    return f"""
%{name}_body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {{
  %p = (s32[]{{:T(128)}}, f32[4,8]{{1,0:T(8,128)S(1)}}) parameter(0)
  %i = s32[]{{:T(128)}} get-tuple-element(%p), index=0
  %copied = s32[]{{:T(128)S(6)}} copy(%i)
  %h = f32[4,8]{{1,0}} get-tuple-element(%p), index=1
  %one = s32[] constant({step})
{body}
  %next = s32[] add(%copied, %one)
  ROOT %out = (s32[], f32[4,8]{{1,0}}) tuple(%next, %h)
}}

%{name}_condition (p: (s32[], f32[4,8])) -> pred[] {{
  %n = s32[] constant({limit})
  %p = (s32[], f32[4,8]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare({operands}), direction={direction}
}}
"""


def run_loop(name: str, start: str = "0", attributes: str = "") -> str:
    """The lines that run a loop, as they stand in an entry or another loop's body (`%x` is `%h` there)."""
    computations = f"condition=%{name}_condition, body=%{name}_body"
    return f"""  %{name}_start = s32[] constant({start})
  %{name}_init = (s32[], f32[4,8]) tuple(%{name}_start, %x)
  %{name} = (s32[], f32[4,8]) while(%{name}_init), {computations}{attributes}"""


GATHER = """  %ag = f32[16,8]{1,0} all-gather(%h), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, \
dimensions={0}, metadata={op_name="jit(f)/while/body/(odd, name)={x}" stack_frame_id=3}"""


def test_an_instruction_is_read_in_full() -> None:
    found = program(GATHER.replace("%h", "%x"))
    (gather,) = found.collectives
    assert (gather.kind, gather.dtype, gather.count, gather.group_size) == ("all-gather", "f32", 1, 4)
    assert gather.operands == (Array("f32", (4, 8)),)
    assert gather.results == (Array("f32", (16, 8)),)
    assert gather.bytes == 16 * 8 * 4
    assert gather.where == "jit(f)/while/body/(odd, name)={x}"


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", 2),
        ("[2,4]<=[8]", 4),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("mesh['data'=2,'model'=4] {'model'}", 4),
        ("mesh['data'=2,'model'=4] {'data','model'}", 8),
        ("mesh['data'=2,'model'=4] {'model':(1)2}", 2),
        ("{}", 8),
    ],
)
def test_group_size_in_every_form(groups: str, size: int) -> None:
    found = program(
        f"  %r = f32[4,8]{{1,0}} all-reduce(%x), channel_id=1, replica_groups={groups}, "
        "use_global_device_ids=true, to_apply=%sum"
    )
    assert [c.group_size for c in found.collectives] == [size]


def test_bytes_are_results_of_a_gather_and_operands_of_the_rest() -> None:
    found = program("""
  %b = bf16[4,8]{1,0:T(8,128)(2,1)} convert(%x)
  %ag = bf16[4,64]{1,0:T(8,128)(2,1)} all-gather(%b), replica_groups=[1,8]<=[8], dimensions={1}
  %rs = f32[4,1]{1,0} reduce-scatter(%x), replica_groups=[1,8]<=[8], dimensions={1}, to_apply=%sum
  %ar = (f32[4,8]{1,0}, /*index=1*/bf16[4,8]{1,0}) all-reduce(%x, /*index=1*/%b), to_apply=%sum
  %aa = f32[4,8]{1,0} all-to-all(%x), replica_groups=[1,8]<=[8], dimensions={0}
  %cp = f32[4,8]{1,0} collective-permute(%x), source_target_pairs={{0,1},{1,2},{2,0}}""")
    assert found.totals() == {
        "all-gather": Total(1, 4 * 64 * 2),
        "reduce-scatter": Total(1, 4 * 8 * 4),
        "all-reduce": Total(1, 4 * 8 * (4 + 2)),
        "all-to-all": Total(1, 4 * 8 * 4),
        "collective-permute": Total(1, 4 * 8 * 4),
    }
    assert {c.kind: c.group_size for c in found.collectives}["collective-permute"] == 3


@pytest.mark.parametrize(
    ("dtype", "width"), [("pred", 8), ("s4", 4), ("f8e4m3fn", 8), ("bf16", 16), ("c64", 64), ("token", 0)]
)
def test_bytes_follow_the_dtype(dtype: str, width: int) -> None:
    assert Array(dtype, (3, 5)).bytes == -(-15 * width // 8)


def test_a_pair_of_start_and_done_counts_once() -> None:
    found = program("""
  %s = (f32[4,8]{1,0}, f32[32,8]{1,0}) all-gather-start(%x), replica_groups=[1,8]<=[8], dimensions={0}
  %d = f32[32,8]{1,0} all-gather-done(%s)
  %t = f32[4,8]{1,0} all-reduce-start(%x), replica_groups={}, to_apply=%sum
  %e = f32[4,8]{1,0} all-reduce-done(%t)
  %u = (f32[4,8]{1,0}, f32[4,8]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), \
source_target_pairs={{0,1}}
  %v = f32[4,8]{1,0} collective-permute-done(%u)""")
    assert found.totals() == {
        "all-gather": Total(1, 32 * 8 * 4),
        "all-reduce": Total(1, 4 * 8 * 4),
        "collective-permute": Total(1, 4 * 8 * 4),
    }
    assert [c.results for c in found.collectives if c.kind == "collective-permute"] == [
        (Array("f32", (4, 8)),)
    ]


def test_collectives_are_found_in_calls_fusions_and_asynchronous_computations() -> None:
    callee = """
%called (h: f32[4,8]) -> f32[4,1] {{
  %h = f32[4,8]{{1,0}} parameter(0)
  ROOT %rs.{0} = f32[4,1]{{1,0}} reduce-scatter(%h), replica_groups={{}}, dimensions={{1}}, to_apply=%sum
}}
"""
    found = program(
        """
  %c = f32[4,1]{1,0} call(%x), to_apply=%called1
  %c2 = f32[4,1]{1,0} call(%x), to_apply=%called1
  %f = f32[4,1]{1,0} fusion(%x), kind=kCustom, calls=%called2, metadata={op_name="jit(f)/fused"}
  %s = ((f32[4,8]{1,0}), f32[4,1]{1,0}, s32[]{:S(2)}) async-start(%x), calls=%called3
  %w = ((f32[4,8]{1,0}), f32[4,1]{1,0}, s32[]{:S(2)}) async-update(%s)
  %d = f32[4,1]{1,0} async-done(%w), calls=%called3""",
        *(callee.format(n).replace("%called", f"%called{n}") for n in (1, 2, 3)),
    )
    assert {c.name: c.count for c in found.collectives} == {"rs.1": 2, "rs.2": 1, "rs.3": 1}
    assert {c.name: c.where for c in found.collectives}["rs.2"] == "jit(f)/fused"


def test_a_collective_inside_a_reducer_does_not_run() -> None:
    nonsense = GATHER.replace("%h", "%a")
    reducer = f"%odd (a: f32[]) -> f32[] {{\n  %a = f32[] parameter(0)\n{nonsense}\n}}\n"
    assert not program("  %r = f32[4]{0} reduce(%x, %x), dimensions={1}, to_apply=%odd", reducer).collectives


SCATTER = """
%all-reduce-scatter.1 (input: f32[4,8]) -> f32[4,1] {
  %input = f32[4,8]{1,0} parameter(0)
  %ar = f32[4,8]{1,0} all-reduce(%input), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%sum
  %b = f32[4,8]{1,0} bitcast(%ar)
  %zero = u32[] constant(0)
  %id = u32[] partition-id()
  ROOT %ds = f32[4,1]{1,0} dynamic-slice(%b, %zero, %id), dynamic_slice_sizes={4,1}
}
"""


def test_an_all_reduce_of_which_a_fusion_keeps_a_slice_is_a_reduce_scatter() -> None:
    entry = "  %f = f32[4,1]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1"
    (scatter,) = program(entry, SCATTER).collectives
    assert (scatter.kind, scatter.bytes, scatter.group_size) == ("reduce-scatter", 4 * 8 * 4, 8)
    assert scatter.results == (Array("f32", (4, 1)),)
    whole = SCATTER.replace("ROOT %ds", "%ds").replace(
        "  %zero", "  ROOT %used = f32[4,8]{1,0} negate(%ar)\n  %zero"
    )
    assert [c.kind for c in program(entry, whole).collectives] == ["all-reduce"]
    called = entry.replace("fusion(%x), kind=kCustom, calls=", "call(%x), to_apply=")
    assert [c.kind for c in program(called, SCATTER).collectives] == ["all-reduce"]


def test_a_gather_that_runs_beside_fusions_counts_once() -> None:
    """The TPU compiler writes it into the start, into every fusion that it runs beside, and into the end."""
    gather = (
        "  %ag = f32[32,8]{1,0} all-gather(%h), channel_id=33, replica_groups={}, dimensions={0}, "
        'backend_config={"async_collective_fusion_config":{"flag_end":"-1","flag_start":"-1"}}'
    )
    part = """
%{0} (h: f32[4,8]) -> f32[32,8] {{
  %h = f32[4,8]{{1,0}} parameter(0)
{1}
  ROOT %c = f32[32,8]{{1,0}} custom-call(%ag), custom_call_target="{2}"
}}
"""
    found = program(
        """
  %async-collective-start = f32[32,8]{1,0} fusion(%x), kind=kCustom, calls=%start
  %fusion = f32[32,8]{1,0} fusion(%x), kind=kOutput, calls=%beside
  %async-collective-done = f32[32,8]{1,0} fusion(%x), kind=kCustom, calls=%done""",
        part.format("start", gather, "AsyncCollectiveStart"),
        part.format("beside", gather, "Other"),
        part.format("done", gather, "AsyncCollectiveDone"),
    )
    assert found.totals() == {"all-gather": Total(1, 32 * 8 * 4)}
    assert found.custom_calls == {"AsyncCollectiveStart": 1, "Other": 1, "AsyncCollectiveDone": 1}


@pytest.mark.parametrize(
    ("limit", "step", "start", "direction", "flipped", "trips"),
    [
        (6, 1, "0", "LT", False, 6),
        (6, 1, "2", "LT", False, 4),
        (7, 2, "0", "LT", False, 4),
        (6, 1, "0", "LE", False, 7),
        (6, 1, "0", "GT", True, 6),
        (0, -1, "5", "GE", False, 6),
        (-1, -2, "5", "GT", False, 3),
        (6, 1, "0", "NE", False, 6),
    ],
)
def test_trips_follow_from_the_condition(
    limit: int, step: int, start: str, direction: str, flipped: bool, trips: int
) -> None:
    text = loop("l", GATHER, limit=limit, step=step, direction=direction, flipped=flipped)
    found = program(run_loop("l", start), text)
    assert ([c.count for c in found.collectives], found.unknown_loops) == ([trips], ())


def test_a_known_trip_count_goes_first() -> None:
    known = ', backend_config={"known_trip_count":{"n":"5"},"known_init_step":{"init":"0","step":"1"}}'
    assert [c.count for c in program(run_loop("l", "0", known), loop("l", GATHER, limit=9)).collectives] == [
        5
    ]


def test_a_counter_is_followed_through_fusions() -> None:
    text = loop("l", GATHER, limit=6)
    text = text.replace("add(%copied, %one)", "fusion(%copied, %one), kind=kLoop, calls=%next")
    text = text.replace("compare(%i, %n)", "fusion(%n, %i), kind=kLoop, calls=%less")
    scalars = """
%next (a: s32[], b: s32[]) -> s32[] {
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %add = s32[] add(%b, %a)
}

%less (b: s32[], a: s32[]) -> pred[] {
  %b = s32[] parameter(0)
  %a = s32[] parameter(1)
  %two = s32[] constant(2)
  %later = s32[] add(%a, %two)
  ROOT %lt = pred[] compare(%later, %b), direction=LT
}
"""
    found = program(run_loop("l"), scalars, text.replace("direction=LT", ""))
    assert ([c.count for c in found.collectives], found.unknown_loops) == ([4], ())


@pytest.mark.parametrize(("kept", "trips", "unknown"), [("%limit", 7, ()), ("%next", 1, ("l",))])
def test_a_limit_that_is_carried_must_not_change(kept: str, trips: int, unknown: tuple[str, ...]) -> None:
    text = loop("l", f"{GATHER}\n  %limit = s32[] get-tuple-element(%p), index=2", limit=0)
    text = text.replace("tuple(%next, %h)", f"tuple(%next, %h, {kept})")
    text = text.replace("%n = s32[] constant(0)", "").replace(
        "  ROOT %lt", "  %n = s32[] get-tuple-element(%p), index=2\n  ROOT %lt"
    )
    entry = "  %seven = s32[] constant(7)\n" + run_loop("l").replace(
        "tuple(%l_start, %x)", "tuple(%l_start, %x, %seven)"
    )
    found = program(entry, text)
    assert ([c.count for c in found.collectives], found.unknown_loops) == ([trips], unknown)


def test_kernels_and_products_are_weighted_like_collectives() -> None:
    body = """  %k = f32[4,8]{1,0} custom-call(%h), custom_call_target="tpu_custom_call"
  %d = f32[4,4]{1,0} dot(%h, %h), lhs_contracting_dims={1}, rhs_contracting_dims={1}"""
    found = program(run_loop("l"), loop("l", body, limit=6))
    assert (found.custom_calls, found.flops) == ({"tpu_custom_call": 6}, 6 * 2 * 4 * 4 * 8)


def test_nested_loops_multiply() -> None:
    inner = run_loop("inner").replace("%x)", "%h)")
    found = program(
        run_loop("outer"),
        loop("inner", GATHER.replace("%ag", "%ag.1"), limit=5),
        loop("outer", f"{GATHER}\n{inner}", limit=3),
    )
    assert {c.name: c.count for c in found.collectives} == {"ag": 3, "ag.1": 15}
    assert found.totals()["all-gather"] == Total(18, 18 * 16 * 8 * 4)


@pytest.mark.parametrize(
    ("old", "new"), [("add(%copied", "multiply(%copied"), ("compare(%i, %n)", "not(%i)")]
)
def test_a_loop_that_cannot_be_counted_is_named(old: str, new: str) -> None:
    text = loop("l", GATHER, limit=6)
    assert old in text
    text = text.replace(old, new)
    found = program(run_loop("l"), text)
    assert ([c.count for c in found.collectives], found.unknown_loops) == ([1], ("l",))


def test_a_loop_that_cannot_be_counted_is_named_from_inside_a_branch() -> None:
    start = "(h: f32[4,8]) -> f32[4,8] {\n  %h = f32[4,8]{1,0} parameter(0)\n"
    found = program(
        "  %c = f32[4,8]{1,0} conditional(%x, %x, %x), branch_computations={%looping, %plain}",
        loop("l", GATHER, limit=6).replace("compare(", "odd("),
        f"%looping {start}{run_loop('l').replace('%x)', '%h)')}\n}}\n",
        f"%plain {start}  ROOT %n = f32[4,8]{{1,0}} negate(%h)\n}}\n",
    )
    assert found.unknown_loops == ("l",)


@pytest.mark.parametrize(
    "named", ["branch_computations={%none, %two, %one}", "true_computation=%two, false_computation=%one"]
)
def test_a_conditional_costs_its_costlier_branch(named: str) -> None:
    start = "(h: f32[4,8]) -> f32[4,8] {\n  %h = f32[4,8]{1,0} parameter(0)\n"
    product = "\n  %d = f32[4,4]{1,0} dot(%h, %h), lhs_contracting_dims={1}, rhs_contracting_dims={1}"
    kernel = '\n  %k = f32[4,8]{1,0} custom-call(%h), custom_call_target="tpu_custom_call"'
    found = program(
        f"  %c = f32[4,8]{{1,0}} conditional(%x, %x, %x, %x), {named}",
        f"%none {start}  ROOT %n = f32[4,8]{{1,0}} negate(%h)\n}}\n",
        f"%one {start}{GATHER}{kernel}{product}\n}}\n",
        f"%two {start}{GATHER}\n{GATHER.replace('%ag', '%ag2')}\n}}\n",
    )
    assert found.totals() == {"all-gather": Total(2, 2 * 16 * 8 * 4)}
    assert (found.custom_calls, found.flops) == ({"tpu_custom_call": 1}, 2 * 4 * 4 * 8)


def test_arrays_in_memory_leave_out_the_inside_of_fusions() -> None:
    inside = """
%g (g: f32[4,8]) -> bf16[4,999] {
  %g = f32[4,8]{1,0} parameter(0)
  %b = bf16[4,8]{1,0} convert(%g)
  ROOT %pad = bf16[4,999]{1,0} pad(%b, %b), padding=0_0x0_991
}

%f (h: f32[4,8]) -> f32[4] {
  %h = f32[4,8]{1,0} parameter(0)
  %big = bf16[4,999]{1,0} fusion(%h), kind=kLoop, calls=%g
  ROOT %r = f32[4]{0} slice(%big), slice={[0:4], [0:1]}
}
"""
    entry = "  %y = (s32[2]{0}, (f32[4]{0}, pred[])) fusion(%x), kind=kLoop, calls=%f"
    found = program(entry, inside)
    inner = {Array("bf16", (4, 999)), Array("bf16", (4, 8))}
    assert inner <= found.arrays()
    assert not inner & found.arrays(in_memory=True)
    assert found.arrays(in_memory=True) >= {
        Array("s32", (2,)),
        Array("f32", (4,)),
        Array("pred", ()),
        Array("f32", (4, 8)),
    }


@pytest.mark.parametrize(
    ("line", "flops"),
    [
        ("f32[4,4]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={1}", 2 * 4 * 4 * 8),
        # The TPU compiler's forms of one product and of one product a batch row and head, [2,4,16,32] each.
        ("f32[4,3]{1,0} convolution(%x, %w), dim_labels=bf_io->bf", 2 * 4 * 3 * 8),
        (
            "f32[2,4,16,16]{3,2,1,0} convolution(%q, %k), window={size=2x4 stride=1x3 lhs_dilate=2x4}, "
            "dim_labels=01bf_01oi->01bf",
            2 * 2 * 4 * 16 * 16 * 32,
        ),
        # Every second element of an image of 5, taps 2 apart: (0, 2, 4), (2, 4), (4).
        (
            "f32[1,3,7]{2,1,0} convolution(%i, %c), window={size=3 stride=2 pad=0_4 rhs_dilate=2}, "
            "dim_labels=b0f_0io->b0f",
            2 * 7 * 6 * (3 + 2 + 1),
        ),
        # An image of 5 under a kernel of 3 with padding: 3 taps inside, 2 at each end.
        (
            "f32[1,5,7]{2,1,0} convolution(%i, %c), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f",
            2 * 7 * 6 * (2 + 3 + 3 + 3 + 2),
        ),
    ],
)
def test_flops_of_products(line: str, flops: int) -> None:
    text = f"""
  %w = f32[8,3]{{1,0}} constant({{...}})
  %q = f32[2,4,16,32]{{3,2,1,0}} constant({{...}})
  %k = f32[2,4,16,32]{{3,2,1,0}} constant({{...}})
  %i = f32[1,5,6]{{2,1,0}} constant({{...}})
  %c = f32[3,6,7]{{2,1,0}} constant({{...}})
  %product = {line}"""
    assert program(text).flops == flops


@pytest.mark.parametrize("text", ["", "not a program", "HloModule m\n\n%f (a: f32[]) -> f32[] {\n}\n"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="ENTRY"):
        read_hlo(text)


def test_a_kernels_metadata_over_several_lines_ends_no_computation() -> None:
    program = read_hlo(
        """HloModule kernel, num_partitions=4

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %kernel = f32[8]{0} custom-call(%p), custom_call_target="tpu_custom_call", metadata={
"block": "128", inner={
}}, sharding={replicated}
  ROOT %sum = f32[8]{0} all-reduce(%kernel), replica_groups={{0,1,2,3}}, to_apply=%add
}
"""
    )
    assert program.custom_calls == {"tpu_custom_call": 1}
    assert [found.kind for found in program.collectives] == ["all-reduce"]

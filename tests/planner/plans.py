"""Plans made by hand: a small run on eight devices, with what a compiler would say given."""

import dataclasses
import functools
from typing import Any

import jax

from icl.parallel.chips import CHIPS
from icl.planner.compiling import Plan, estimate_training, lay_out
from icl.planner.hlo import read_hlo
from icl.planner.topology import Topology
from icl.training.config import RunConfig
from tests.training.small import small_run

V5E = Topology("v5e:2x4", CHIPS["v5e"], 8)
H100 = Topology("gpu:h100x8", CHIPS["h100"], 8)
GATHERED = 128
"""Elements of the one array that the program of `compiled_plan` gathers, over eight devices."""
TRIPS = 3
PROGRAM = f"""HloModule step, num_partitions=8

%sum (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}}

%body (p: (s32[], f32[16])) -> (s32[], f32[16]) {{
  %p = (s32[], f32[16]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[16] get-tuple-element(%p), index=1
  %all = f32[{GATHERED}] all-gather(%x), replica_groups=[1,8]<=[8], dimensions={{0}}
  %total = f32[16] all-reduce(%x), replica_groups=[2,4]<=[8], to_apply=%sum
  %token = token[] after-all()
  %sent = (f32[16], u32[], token[]) send(%total, %token), channel_id=3, is_host_transfer=true, frontend_attributes={{_xla_host_transfer_handler_name="xla_megascale_runtime"}}
  ROOT %next = (s32[], f32[16]) tuple(%i, %total)
}}

%cond (p: (s32[], f32[16])) -> pred[] {{
  %p = (s32[], f32[16]) parameter(0)
  ROOT %go = pred[] constant(true)
}}

ENTRY %main (x: f32[16], u: f32[4,8], v: f32[8,2]) -> f32[16] {{
  %x = f32[16] parameter(0)
  %u = f32[4,8] parameter(1)
  %v = f32[8,2] parameter(2)
  %w = f32[4,2] dot(%u, %v), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  %zero = s32[] constant(0)
  %start = (s32[], f32[16]) tuple(%zero, %x)
  %loop = (s32[], f32[16]) while(%start), condition=%cond, body=%body, backend_config={{"known_trip_count":{{"n":"{TRIPS}"}}}}
  ROOT %out = f32[16] get-tuple-element(%loop), index=1
}}
"""  # noqa: E501


def run_on(**mesh: int) -> RunConfig:
    """The small run of the suite, 8 rows of 64 positions, on a mesh."""
    return small_run(mesh={"data": 1, **mesh})


@functools.cache
def _default_estimate(topology: Topology) -> Plan:
    return estimated_plan(topology, run_on(fsdp=8))


def estimated_plan(topology: Topology = V5E, run: RunConfig | None = None) -> Plan:
    """What shapes say of a run."""
    if run is None:
        return _default_estimate(topology)
    return estimate_training(run, topology, lay_out(run, topology, jax.devices()))


def compiled_plan(plan: Plan | None = None, **memory: Any) -> Plan:
    """The plan as if `PROGRAM` had been compiled for it, with changes to its memory."""
    plan = plan or estimated_plan()
    said = dataclasses.replace(plan.memory, is_estimate=False, code=4096, **memory)
    return dataclasses.replace(plan, memory=said, program=read_hlo(PROGRAM), seconds=2.0)

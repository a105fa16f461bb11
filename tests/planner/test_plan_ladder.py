import pytest

from icl.config import load_runs
from icl.planner.topology import parse_topology
from icl.training.setup import accumulation_steps
from tools.plan_ladder import SLICES


@pytest.mark.parametrize("name", SLICES)
def test_every_model_of_the_ladder_divides_on_its_slice(name: str) -> None:
    topology, settings = SLICES[name]
    bindings = [f"{setting} = {value}" for setting, value in settings.items()]
    (run,) = load_runs(["runs/gpt3.gin", f"models/{name}.gin"], bindings)
    data, fsdp, tensor, _ = run.mesh.sizes(parse_topology(topology).num_chips)
    assert run.model.num_heads % tensor == 0 and run.model.embed_dim / fsdp >= 64
    for stage in run.ramp.stages:
        rows = stage.rows // accumulation_steps(run, stage.rows, data * fsdp)
        assert rows % (data * fsdp) == 0
    assert run.data.row_length == 2048 and run.batch_rows * 2048 == run.train.batch_tokens


def test_the_ladder_is_that_of_the_papers_table() -> None:
    sizes = ("125m", "350m", "760m", "1_3b", "2_7b", "6_7b", "13b", "175b")
    assert list(SLICES) == [f"gpt3_{size}" for size in sizes]

"""What the README shows works."""

import importlib.util
import re
from pathlib import Path

import numpy as np

from icl import config
from icl.data.batch import NO_EXAMPLE
from icl.data.config import DataConfig
from icl.data.rows import Rows
from icl.data.tokenizer import load_tokenizer
from icl.tasks import FAMILIES, build_tasks

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_family_of_the_readme_fills_rows(tmp_path: Path) -> None:
    (code,) = [block for block in blocks("python") if "@register" in block]
    path = tmp_path / "order.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("order", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        family = module.Order()
        data = DataConfig(row_length=128, weights={"order": 1.0})
        rows = Rows(data, build_tasks({"order": family}), load_tokenizer("bytes"))
        assert np.any(np.asarray(rows[0].examples_BT) != NO_EXAMPLE)
        (task,) = family.build("order")
        example = next(iter(task.instance("held_out", 0).demonstrations(np.random.default_rng(0))))
        assert example.target in example.input
    finally:
        FAMILIES.pop("order", None)


def test_the_ladder_of_the_readme_loads() -> None:
    (ladder,) = [block for block in blocks("python") if "Ladder" in block]
    small, large = config.load_runs([], ["DataConfig.weights = {'cipher': 1}", ladder])
    assert (small.model.embed_dim, large.model.embed_dim) == (32, 128)


def test_the_mixture_of_the_readme_loads() -> None:
    (mixture,) = [block for block in blocks("python") if "DataConfig.corpora" in block]
    (run,) = config.load_runs([], [mixture])
    assert run.data.families == tuple(run.families) and len(run.families) == 5


def test_files_and_folders_that_the_readme_links_to_exist() -> None:
    linked = set(re.findall(r"\]\((?!http)([^)]+)\)", README)) - {"docs/k_curves.png"}
    named = set(re.findall(r"gin/[\w/]+\.gin|tools/\w+\.sh", README))
    assert linked and named
    assert [name for name in sorted(linked | named) if not (REPOSITORY / name).exists()] == []


def test_the_settings_of_an_evaluation_that_the_readme_names_load() -> None:
    table = README[README.index("| to study |") :].split("\n\n")[0]
    settings = re.findall(r"`(\w+ = (?:[^`]|\n)+?)`", table)
    assert len(settings) >= 10
    for setting in settings:
        config.load_eval([], [f"EvalConfig.{setting}"])

"""Every gin file of the repository loads, and what it describes can be built."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest

from icl import config, model
from icl.errors import InputError
from icl.model import ModelConfig
from icl.training.optimizer import OptimizerConfig
from icl.training.setup import Setup

REPOSITORY = Path(__file__).parent.parent
GIN_FILES = sorted(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("gin/**/*.gin"))
PARTS = ("gin/models/", "gin/data/", "gin/train/")


@pytest.fixture(scope="module")
def word_bindings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Bindings for the paths that words.gin takes from the command line, to small stand-ins."""
    folder = tmp_path_factory.mktemp("words")
    _, overrides, *_ = config.load_eval(
        ["data/words.gin"], ["tasks = 'x'", "book = 'x'", "tokenizer = 'bytes'"]
    )
    kept_out = overrides["files"]["held_out"]
    for name in (*kept_out, "antonym"):
        examples = [{"input": f"word {n}", "output": f"drow {n}"} for n in range(40)]
        (folder / f"{name}.json").write_text(json.dumps(examples))
    (folder / "book.txt").write_text("It was the best of times, it was the worst of times. " * 50)
    return [f"tasks = '{folder}/*.json'", f"book = '{folder}/book.txt'", "tokenizer = 'bytes'"]


@pytest.fixture(scope="module")
def mixed_bindings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Bindings for the eight paths that mixed.gin takes from the command line, to small stand-ins."""
    folder = tmp_path_factory.mktemp("mixed")
    macros = [
        "text",
        "function_vectors",
        "instruction_induction",
        "t0",
        "inflection",
        "typos",
        "translation",
        "gpt3",
    ]
    _, overrides, *_ = config.load_eval(["data/mixed.gin"], [f"{macro} = 'x'" for macro in macros])
    held_out = {name: settings.get("held_out", []) for name, settings in overrides.items()}
    for macro, family, prefix in (
        ("function_vectors", "function_vectors/files", ""),
        ("instruction_induction", "induction/files", "induction_"),
        ("t0", "t0/files", "t0_"),
        ("gpt3", "gpt3/files", "gpt3_"),
    ):
        (folder / macro).mkdir()
        examples = [{"input": f"{macro} word {n}", "output": f"drow {n}"} for n in range(40)]
        names = [pattern.replace("*", "x").removeprefix(prefix) for pattern in held_out[family]]
        for name in (*names, "learned"):
            (folder / macro / f"{name}.json").write_text(json.dumps(examples))
    names = [pattern.replace("*", "-x") for pattern in held_out["inflection/pairs"]]
    for name in (*names, "latin"):
        lines = [f"stem{n}\tstem{n}us\tN;SG" for n in range(40)]
        (folder / f"{name.removeprefix('inflect_')}.tsv").write_text("\n".join(lines))
    (folder / "typos.txt").write_text("\n".join(f"wrod{n}->word{n}" for n in range(40)))
    for pair in ("en-fi", "en-de"):
        lines = [f"word{n}\twort{n}" for n in range(40)]
        (folder / f"words.{pair}.txt").write_text("\n".join(lines))
    (folder / "book.txt").write_text("It was the best of times, it was the worst of times. " * 50)
    return [
        f"text = ['{folder}/book.txt']",
        *(
            f"{macro} = '{folder}/{macro}/*.json'"
            for macro in ("function_vectors", "instruction_induction", "t0", "gpt3")
        ),
        f"inflection = '{folder}/*.tsv'",
        f"typos = '{folder}/typos.txt'",
        f"translation = '{folder}/words.en-*.txt'",
    ]


@pytest.mark.parametrize("name", GIN_FILES)
def test_every_gin_file_loads_and_builds(
    name: str, word_bindings: list[str], mixed_bindings: list[str]
) -> None:
    if name.startswith("gin/eval/"):
        text = (REPOSITORY / name).read_text()
        macros = [f"{macro} = 'x'" for macro in ("gpt3", "sat_analogies") if f"= %{macro}\n" in text]
        assert config.load_eval([name], macros).config.ks
        return
    files = ["runs/smoke.gin", name] if name.startswith(PARTS) else [name]
    for run in config.load_runs(
        files, {"words.gin": word_bindings, "mixed.gin": mixed_bindings}.get(Path(name).name, [])
    ):
        setup = Setup(run)
        assert model.num_params(setup.model) == sum(
            leaf.size for leaf in jax.tree.leaves(setup.abstract_state().params)
        )
        assert config.load_runs([], [run.config_text]) == [run]


@pytest.mark.parametrize("name", GIN_FILES)
def test_every_gin_file_opens_with_its_purpose_and_a_command(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    opening = text.split("\n\n")[0].splitlines()
    assert len(opening) >= 2 and all(line.startswith("#") for line in opening)
    assert any(line.startswith("#   ") for line in opening)


def test_gin_files_are_found_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("gin/runs/smoke.gin", "runs/smoke.gin"):
        assert config.load_runs([name])[0].train.steps == 60


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("runs/smok.gin", "; near: 'runs/smoke.gin'"),
        ("gin/runs/smoke", "; near: 'runs/smoke.gin'"),
        ("/nowhere/smoke.gin", "; near: 'runs/smoke.gin'"),
        ("gpt3_1.3b.gin", "'models/gpt3_1_3b.gin'"),
    ],
)
def test_a_name_that_is_no_gin_file_is_answered_with_those_like_it(name: str, near: str) -> None:
    with pytest.raises(InputError) as caught:
        config.find_gin_file(name)
    assert str(caught.value).startswith(f"gin file {name!r} does not exist: expected a path, or a name in")
    assert near in str(caught.value)
    with pytest.raises(InputError, match=r"package's gin folder$"):
        config.find_gin_file("nothing/of/this_kind.gin")


def test_the_recipe_for_small_models_is_the_same_in_python() -> None:
    (run,) = config.load_runs(["data/quickstart.gin", "models/small.gin", "train/small.gin"])
    assert ModelConfig.small() == run.model and OptimizerConfig.small() == run.optimizer
    assert ModelConfig.small(conv_width=0) == dataclasses.replace(run.model, conv_width=0)
    assert OptimizerConfig.small(learning_rate=1) == dataclasses.replace(run.optimizer, learning_rate=1)


def test_the_words_run_keeps_ten_tasks_out_of_training_and_evaluates_them(word_bindings: list[str]) -> None:
    (run,) = config.load_runs(["runs/words.gin"], word_bindings)
    kept_out = run.families["files"].held_out
    assert len(kept_out) == 10
    assert config.load_eval(["eval/words.gin"])[0].tasks == kept_out


@pytest.mark.parametrize(
    ("name", "billions", "tokens_a_step", "learning_rate"),
    [
        ("125m", 0.125, 0.5e6, 6e-4),
        ("350m", 0.350, 0.5e6, 3e-4),
        ("760m", 0.760, 0.5e6, 2.5e-4),
        ("1_3b", 1.3, 1e6, 2e-4),
        ("2_7b", 2.7, 1e6, 1.6e-4),
        ("6_7b", 6.7, 2e6, 1.2e-4),
        ("13b", 13.0, 2e6, 1e-4),
        ("175b", 175.0, 3.2e6, 0.6e-4),
    ],
)
def test_the_ladder_is_that_of_table_2_1(
    name: str, billions: float, tokens_a_step: float, learning_rate: float
) -> None:
    (run,) = config.load_runs(["runs/gpt3.gin", f"models/gpt3_{name}.gin"])
    assert model.num_params(run.model) / 1e9 == pytest.approx(billions, rel=0.025)
    assert run.model.num_heads * run.model.size_per_head == run.model.embed_dim
    assert run.model.hidden_dim == 4 * run.model.embed_dim
    assert run.train.batch_tokens == pytest.approx(tokens_a_step, rel=0.05)
    assert run.optimizer.learning_rate == learning_rate
    assert 300e9 <= run.tokens(run.train.steps) < 300e9 + run.train.batch_tokens
    assert run.ramp.rows(0) * 2048 == (131_072 if name == "175b" else 32_768)
    assert run.ramp.first_row(run.ramp.stages[-1].first_step) * 2048 == pytest.approx(
        run.train.ramp_tokens, rel=1e-3
    )


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("gpt2_124m", 0.124),
        ("gpt2_355m", 0.355),
        ("gpt2_774m", 0.774),
        ("gpt2_1_5b", 1.558),
        ("before_gpt3_8b", 8.3),
        ("before_gpt3_11b", 11.5),
        ("before_gpt3_17b", 17.2),
    ],
)
def test_models_before_gpt3_have_their_sizes(name: str, billions: float) -> None:
    (run,) = config.load_runs(["runs/smoke.gin", f"models/{name}.gin"])
    assert model.num_params(run.model) / 1e9 == pytest.approx(billions, rel=0.02)


def test_the_cpu_ladder_spans_ten_thousand_to_ten_million_parameters() -> None:
    runs = config.load_runs(["runs/cpu_ladder.gin"])
    sizes = [model.num_non_embedding_params(Setup(run).model) for run in runs]
    assert sizes == pytest.approx([1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7], rel=0.25)

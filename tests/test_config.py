"""gin files fill the settings, and every mistake in them is one line that says where."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl import config
from icl.errors import InputError, check_types

MIXTURE = "DataConfig.weights = {'cipher': 1}"


def load_error(*bindings: str) -> str:
    with pytest.raises(InputError) as caught:
        config.load_runs([], [MIXTURE, *bindings])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bindings_reach_the_settings_of_their_class() -> None:
    (run,) = config.load_runs([], [MIXTURE, "ModelConfig.embed_dim = 24", "TrainConfig.steps = 7"])
    assert (run.model.embed_dim, run.train.steps, run.rung) == (24, 7, "")
    assert list(run.families) == ["cipher"]


def test_a_later_binding_wins_and_loads_do_not_leak_into_each_other() -> None:
    (first,) = config.load_runs([], [MIXTURE, "TrainConfig.steps = 7", "TrainConfig.steps = 8"])
    (second,) = config.load_runs([], [MIXTURE])
    assert first.train.steps == 8
    assert second.train.steps == type(second.train)().steps


LADDER = (
    "Ladder.rungs = ('xs', 's')",
    "DataConfig.weights = {'cipher': 1, 'long/cipher': 2}",
    "xs/ModelConfig.embed_dim = 24",
    "ModelConfig.embed_dim = %width",
    "width = 48",
    "long/Cipher.alphabet = 'abcdefgh'",
    "xs/long/Cipher.held_out_share = 0.5",
)


def test_scopes_are_rungs_and_entries_of_the_mixture() -> None:
    xs, s = config.load_runs([], LADDER)
    assert (xs.rung, xs.model.embed_dim, s.rung, s.model.embed_dim) == ("xs", 24, "s", 48)
    assert xs.families["long/cipher"] != xs.families["cipher"]
    assert xs.families["long/cipher"].alphabet == s.families["long/cipher"].alphabet == "abcdefgh"
    assert xs.families["long/cipher"].held_out_share == 0.5 != s.families["long/cipher"].held_out_share


def test_rungs_can_be_chosen_and_unknown_ones_are_refused() -> None:
    (run,) = config.load_runs([], LADDER, rungs=["s"])
    assert run.rung == "s"
    with pytest.raises(InputError, match=r"rung 'l'.*'xs', 's'"):
        config.load_runs([], LADDER, rungs=["l"])


def test_the_operative_config_gives_the_same_run_again() -> None:
    for run in config.load_runs([], LADDER):
        assert config.load_runs([], [run.config_text]) == [run]


def test_a_list_an_integer_and_an_integral_float_become_what_the_field_is() -> None:
    (run,) = config.load_runs(
        [],
        [
            MIXTURE,
            "ModelConfig.layer_pattern = ['dense']",
            "OptimizerConfig.clip = 2",
            "TrainConfig.steps = 1e3",
        ],
    )
    assert run.model.layer_pattern == ("dense",)
    assert repr(run.optimizer.clip) == "2.0"
    assert repr(run.train.steps) == "1000"


@pytest.mark.parametrize(
    ("binding", "problem"),
    [
        ("TrainConfg.steps = 1", "unknown name 'TrainConfg'; did you mean 'TrainConfig'"),
        ("TrainConfig.step = 1", "no setting 'step'; did you mean 'steps'"),
        ("EvalConfig.kss = (1,)", "no setting 'kss'; did you mean 'ks'"),
        ("Affine.prim = 7", "no setting 'prim'; did you mean 'prime'"),
        ("TrainConfig.steps = '12'", "TrainConfig.steps = '12': expected an integer"),
        ("TrainConfig.steps = 1.5", "TrainConfig.steps = 1.5: expected an integer"),
        ("TrainConfig.steps = True", "TrainConfig.steps = True: expected an integer"),
        ("TrainConfig.steps = None", "TrainConfig.steps = None: expected an integer"),
        ("OptimizerConfig.learning_rate = nan", "'nan' is no literal"),
        ("OptimizerConfig.learning_rate = 1e999", "expected a finite number"),
        ("ModelConfig.norm = 'batch'", "expected one of 'layer', 'rms'"),
        ("ModelConfig.layer_pattern = 'dense'", "expected a list, each item a string"),
        ("DataConfig.weights = ['cipher']", "expected a dict from a string to a finite number"),
        ("DataConfig.weights = {'ciper': 1}", "no task family 'ciper'"),
        ("TrainConfig.steps = %steps", "macro '%steps' is not set"),
        ("steps = %steps", "nothing reads 'steps'"),
        ("TrainConfig.steps = %a\na = %b\nb = %a", "macro '%a' refers to itself"),
        ("TrainConfigsteps = 3", "nothing reads 'TrainConfigsteps'"),
        ("TrainConfig.steps = @Cipher()", "expected a plain value or a %macro"),
        ("import os", "no imports"),
        ("include 'no/such.gin'", "gin file 'no/such.gin' does not exist"),
        ("TrainConfig.steps 60", "gin cannot parse this"),
        ("TrainConfig.steps = [1,", "gin cannot parse this"),
        ("zz/TrainConfig.steps = 3", "scope of 'zz/TrainConfig.steps' is unknown"),
        ("xs/EvalConfig.ks = (1,)", "scope of 'xs/EvalConfig.ks' is unknown"),
        ("Ladder.rungs = ('a', 'a')", "expected each rung once"),
        ("Ladder.rungs = ('../a',)", "expected letters, digits and _"),
    ],
)
def test_a_wrong_binding_is_refused_in_one_line_that_quotes_it(binding: str, problem: str) -> None:
    message = load_error(binding)
    assert problem in message
    assert binding.split("=")[0].strip() in message


def test_an_error_names_the_file_and_the_line(tmp_path: Path) -> None:
    path = tmp_path / "run.gin"
    path.write_text(f"{MIXTURE}\n\nTrainConfig.steps = 'ten'\n")
    with pytest.raises(InputError, match=r"TrainConfig\.steps = 'ten'.*run\.gin, line 3"):
        config.load_runs([str(path)])


def test_an_error_between_two_settings_names_where_one_was_set(tmp_path: Path) -> None:
    path = tmp_path / "run.gin"
    path.write_text(f"{MIXTURE}\nDataConfig.row_length = 64\nTrainConfig.batch_tokens = 100\n")
    with pytest.raises(InputError, match=r"expected a multiple of.*run\.gin, line 3"):
        config.load_runs([str(path)])


def test_includes_are_found_beside_the_including_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "part.gin").write_text("TrainConfig.steps = 3\n")
    (tmp_path / "run.gin").write_text(f"include 'sub/part.gin'\n{MIXTURE}\n")
    (run,) = config.load_runs([str(tmp_path / "run.gin")])
    assert run.train.steps == 3


def test_a_circle_of_includes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gin").write_text("include 'b.gin'\n")
    (tmp_path / "b.gin").write_text("include 'a.gin'\n")
    with pytest.raises(InputError, match="includes itself"):
        config.load_runs([str(tmp_path / "a.gin")])


@pytest.mark.parametrize("content", [b"\xff\xfe", b"TrainConfig.steps = '\x00'", b"((((", b"a = b = c\n"])
def test_a_file_that_is_no_gin_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.gin"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.gin"):
        config.load_runs([str(path)])


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=st.sampled_from("TrainConfig.steps=%@/:{}[]()'\"\\ \n\t#,1e-_é\0"), max_size=60))
def test_no_text_gets_anything_but_settings_or_an_input_error(text: str) -> None:
    try:
        config.load_runs([], [MIXTURE, text])
    except InputError as error:
        assert "\n" not in str(error)


def test_eval_settings_come_with_what_is_bound_for_families() -> None:
    loaded, overrides, *_ = config.load_eval(
        [], ["EvalConfig.ks = (0, 1)", "FileTasks.glob = 'x*'", "words/FileTasks.test_share = 0.5"]
    )
    assert loaded.ks == (0, 1)
    assert overrides == {"files": {"glob": "x*"}, "words/files": {"test_share": 0.5}}


@dataclasses.dataclass(frozen=True)
class Sample:
    count: int = 1
    pair: tuple[int, str] = (1, "a")
    either: float | None = None
    shares: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self)


def test_check_types_converts_only_what_loses_nothing() -> None:
    sample = Sample(count=2.0, pair=[3, "b"], either=1, shares={"a": 1})  # type: ignore[arg-type]
    assert sample == Sample(2, (3, "b"), 1.0, {"a": 1.0})
    assert (repr(sample.count), repr(sample.shares["a"])) == ("2", "1.0")


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 2.5},
        {"count": "2"},
        {"count": True},
        {"pair": (1, 2)},
        {"pair": (1, "a", "b")},
        {"either": "x"},
        {"either": float("nan")},
        {"shares": {1: 1.0}},
        {"shares": [1.0]},
    ],
)
def test_check_types_names_class_field_and_value(wrong: dict[str, object]) -> None:
    (field,) = wrong
    with pytest.raises(InputError, match=rf"Sample\.{field} = .*: expected "):
        Sample(**wrong)  # type: ignore[arg-type]

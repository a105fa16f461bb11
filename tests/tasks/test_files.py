"""Claims about tasks that are files."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from icl.data.keys import generator
from icl.errors import InputError
from icl.tasks import Example, FileTasks, build_tasks
from icl.tasks.files import FileTask

PAIRS = [{"input": f"word{i}", "output": f"WORD{i}"} for i in range(100)]


def write(path: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def task(path: Path, **settings: Any) -> FileTask:
    (made,) = FileTasks(glob=str(path), **settings).build("files")
    return made


def shown(made: FileTask, split: Any = "held_out") -> list[Example]:
    return list(made.instance(split, 0).demonstrations(generator("files")))


@pytest.mark.parametrize("name", ["upper.json", "upper.json.gz", "upper.jsonl", "upper.jsonl.gz"])
def test_every_format_gives_the_same_task(tmp_path: Path, name: str) -> None:
    lines = "\n\n".join(map(json.dumps, PAIRS)) + "\n"
    made = task(write(tmp_path / name, lines if "jsonl" in name else PAIRS))
    reference = task(write(tmp_path / "reference.json", PAIRS))
    assert made.name == "upper"
    assert sorted(e.input for e in shown(made)) == sorted(e.input for e in shown(reference))


def test_test_part_and_training_part_share_no_input_and_cover_the_file(tmp_path: Path) -> None:
    made = task(write(tmp_path / "upper.json", PAIRS))
    tested = {query.example.input for query in made.queries("held_out")}
    trained = {example.input for example in shown(made, "train")}
    assert 5 < len(tested) == made.num_test < 40 and not tested & trained
    assert tested | trained == {pair["input"] for pair in PAIRS}
    assert {e.input for e in shown(made, "held_out")} == trained


def test_an_input_is_in_the_same_part_of_every_file(tmp_path: Path) -> None:
    one = task(write(tmp_path / "one.json", PAIRS))
    two = task(write(tmp_path / "two.json", [{"input": p["input"].upper(), "output": "x"} for p in PAIRS]))
    assert {q.example.key for q in one.queries("held_out")} == {
        q.example.key for q in two.queries("held_out")
    }


def test_episodes_of_a_held_out_instance_test_the_test_part(tmp_path: Path) -> None:
    made = task(write(tmp_path / "upper.json", PAIRS))
    tests = {e.input for e in made.instance("held_out", 0).episode(generator("files"))}
    assert tests == {query.example.input for query in made.queries("held_out")}


def test_held_out_files_have_no_training_instance(tmp_path: Path) -> None:
    for name in ("a1", "a2", "b"):
        write(tmp_path / f"{name}.json", PAIRS)
    tasks = FileTasks(glob=str(tmp_path), held_out=("a*",)).build("files")
    assert {made.name: made.trained for made in tasks} == {"a1": False, "a2": False, "b": True}
    assert tasks[0].num_instances("train") == 0 and not list(tasks[0].queries("train"))
    assert len(shown(tasks[0])) > 50
    with pytest.raises(IndexError):
        tasks[0].instance("train", 0)


def test_names_that_match_no_file_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.json", PAIRS)
    for settings in ({"held_out": ("b",)}, {"instructions": {"b": "Do b."}}, {"exclude": ("*",)}):
        with pytest.raises(InputError, match="FileTasks"):
            FileTasks(glob=str(tmp_path / "*.json"), **settings).build("files")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.json", PAIRS)
    write(tmp_path / "a.jsonl.gz", "\n".join(map(json.dumps, PAIRS)))
    with pytest.raises(InputError, match="make one task name"):
        FileTasks(glob=str(tmp_path)).build("files")
    family = FileTasks(glob=str(tmp_path / "a.json"))
    with pytest.raises(InputError, match="two tasks are named 'a'"):
        build_tasks({"files": family, "other/files": family})


def test_the_first_of_equal_inputs_stays_and_the_others_are_counted(tmp_path: Path) -> None:
    extra = [
        {"input": " word1 ", "output": "other"},
        {"input": "word1", "output": "another"},
        {"input": "word2", "output": "WORD2"},
        {"input": "Word3", "output": "other"},
    ]
    made = task(write(tmp_path / "upper.json", PAIRS + extra))
    assert (made.num_conflicts, made.num_repeats) == (2, 1)
    examples = [*shown(made), *(query.example for query in made.queries("held_out"))]
    targets = {e.input: e.target for e in examples}
    assert len(examples) == len(targets) == 101 and targets["word1"] == "WORD1"
    assert {e.key for e in examples if e.input in ("word3", "Word3")} == {"word3"}


def test_instruction_comes_from_the_settings_or_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "upper.json", [{**PAIRS[0], "instruction": "Shout."}, *PAIRS[1:]])
    assert task(path).instance("held_out", 0).instruction == "Shout."
    assert task(path, instructions={"upper": "Loud."}).instance("held_out", 0).instruction == "Loud."
    assert task(write(tmp_path / "plain.json", PAIRS)).instance("train", 0).instruction is None
    write(path, [{**pair, "instruction": f"Shout {i % 2}."} for i, pair in enumerate(PAIRS)])
    with pytest.raises(InputError, match="2 different instructions"):
        task(path)


def test_a_prompt_reads_input_arrow_output(tmp_path: Path) -> None:
    template = task(write(tmp_path / "upper.json", PAIRS)).template
    example = Example("cold", "hot")
    assert template.context(example) + template.completion(example) == "cold -> hot"


def test_queries_are_stable_when_the_file_is_reordered(tmp_path: Path) -> None:
    one = task(write(tmp_path / "upper.json", PAIRS))
    two = task(write(tmp_path / "upper.json", PAIRS[::-1]))
    names = [query.name for query in one.queries("held_out")]
    assert names == [query.name for query in two.queries("held_out")]
    assert len(set(names)) == len(names)


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    one = task(write(tmp_path / "upper.json", PAIRS)).fingerprint()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert task(write(moved / "upper.json", PAIRS)).fingerprint() == one
    assert (
        task(write(moved / "upper.json", [*PAIRS[:-1], {"input": "word99", "output": "?"}])).fingerprint()
        != one
    )


def test_chance_is_a_guess_among_the_outputs(tmp_path: Path) -> None:
    pairs = [{"input": f"w{i}", "output": "ab"[i % 2]} for i in range(50)]
    assert task(write(tmp_path / "two.json", pairs)).chance() == 0.5


SCHEMAS = [
    {
        "context_options": [f"Ann{i} met Sue as Ann", f"Ann{i} met Sue as Sue"],
        "continuation": end,
        "gold": gold,
    }
    for i in range(4)
    for gold, end in enumerate(("was late.", "was early."))
]


def test_contexts_that_compete_are_scored_by_what_follows_both(tmp_path: Path) -> None:
    made = task(write(tmp_path / "schema.jsonl", "\n".join(map(json.dumps, SCHEMAS))), pool="shared")
    queries = [query.example for query in made.queries("held_out")]
    assert len(queries) == 8 and made.num_repeats == made.num_conflicts == 0
    example = next(e for e in queries if e.input == "Ann0 met Sue as" and e.ending == " was late.")
    assert example.choices == ("Ann was late.", "Sue was late.") and example.target == "Ann was late."
    assert len({e.key for e in queries}) == 1  # twins, here of all
    assert (
        made.template.context(example) + made.template.completion(example) == "Ann0 met Sue as Ann was late."
    )


@pytest.mark.parametrize(
    ("row", "aliases"),
    [
        ({"question": "who?", "answer": ["Ann", "She", "Ann"]}, ("She",)),
        ({"question": "who?", "answers": ["Ann", "She"]}, ("She",)),
        ({"question": "who?", "answer": "Ann"}, ()),
        ({"context": "who?", "answer": "Ann", "aliases": ["She", "", "Ann"]}, ("She",)),
        ({"context": "who?", "continuation": "Ann", "category": "x"}, ()),
    ],
)
def test_questions_have_one_answer_or_several(tmp_path: Path, row: dict[str, Any], aliases: Any) -> None:
    rows = [row, {key: "other" for key in row if key not in ("answers", "aliases")} | {"answers": ["b"]}]
    settings = {"input_prefix": "Q: ", "separator": "\n\nA:", "delimiter": "\n\n"}
    path = write(tmp_path / "open.jsonl", "\n".join(map(json.dumps, rows)))
    made = task(path, pool="shared", answers="squad", corpus_metrics=["bleu"], **settings)
    example = next(e for e in shown(made) if e.target == "Ann")
    assert example.aliases == aliases
    assert made.template.context(example) + made.template.completion(example) == "Q: who?\n\nA: Ann"
    assert (made.answer_rule, made.corpus_metrics) == ("squad", ("bleu",))


def test_a_file_says_how_its_options_compare(tmp_path: Path) -> None:
    rows = [{"query": f"q{i}", "choices": ["yes", "no"], "gold": i % 2} for i in range(4)]
    path = write(tmp_path / "choice.jsonl", "\n".join(map(json.dumps, rows)))
    made = task(path, pool="shared", option_rule="unconditional", answer_context="A:")
    assert (made.option_rule, made.answer_context) == ("unconditional", "A:")
    assert made.labels() == ("yes", "no")
    path = write(tmp_path / "group.jsonl", "\n".join(json.dumps({**row, "group": "g"}) for row in rows))
    assert {query.example.group for query in task(path, pool="shared").queries("held_out")} == {"g"}


def test_labels_are_the_few_answers_that_many_examples_share(tmp_path: Path) -> None:
    pairs = [{"input": f"w{i}", "output": "ab"[i % 2]} for i in range(50)]
    assert task(write(tmp_path / "two.json", pairs)).labels() == ("a", "b")
    assert task(write(tmp_path / "few.json", pairs[:4]), pool="shared").labels() == ()  # 2 of 4
    assert task(write(tmp_path / "many.json", PAIRS)).labels() == ()
    rows = [{"query": f"q{i}", "choices": ["yes", f"no{i}"], "gold": 0} for i in range(9)]
    path = write(tmp_path / "own.jsonl", "\n".join(map(json.dumps, rows)))
    assert task(path, pool="shared").labels() == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"input": "a", "output": "b"},\n {"input": "c" "output"}]', "a.json, line 2: not JSON"),
        ("a.json", '{"input": "a"}', "a.json: holds a JSON dict; expected a list"),
        ("a.json", '[{"input": "a", "output": "b"}, 3]', "a.json, item 2: '3'; expected an object"),
        ("a.jsonl", '{"input": "a", "output": "b"}\n\n{"input": "c"}', "a.jsonl, line 3: no field 'output'"),
        ("a.jsonl", '{"input": "a", "output": "b"}\n{', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"input": "a", "output": 3}', "a.jsonl, line 1: output = 3; expected text"),
        ("a.jsonl", '{"input": " ", "output": "b"}', "a.jsonl, line 1: input = ' '; expected text"),
        ("a.jsonl", '{"input": "\\ud800", "output": "b"}', "a.jsonl, line 1: input holds a lone surrogate"),
        ("a.jsonl", "[" * 100_000, "a.jsonl, line 1: not JSON"),
        ("a.json", "[]", "a.json: holds no examples"),
        ("a.jsonl", "", "a.jsonl: holds no examples"),
        ("a.json", '[{"input": "a", "output": "b"}]', "expected at least one of each"),
        ("a.json", '[{"input": "a", "output": "b\\nc"}]', "holds the delimiter"),
        ("a.jsonl", '{"question": "a"}', "a.jsonl, line 1: no field 'answer'"),
        ("a.jsonl", '{"question": "a", "answer": []}', "a.jsonl, line 1: answer = []; expected text"),
        ("a.jsonl", '{"question": "a", "answer": ["b", 3]}', "a.jsonl, line 1: answer = 3; expected text"),
        (
            "a.jsonl",
            '{"context": "a", "answer": "b", "aliases": "c"}',
            "line 1: aliases = 'c'; expected a list",
        ),
        ("a.jsonl", '{"context": "a", "answer": "b", "aliases": [3]}', "line 1: aliases = 3; expected text"),
        ("a.jsonl", '{"context_options": ["a b", "a c"], "gold": 0}', "line 1: no field 'continuation'"),
        (
            "a.jsonl",
            '{"context_options": "a", "continuation": "d", "gold": 0}',
            "context_options = a; expected",
        ),
        (
            "a.jsonl",
            '{"context_options": ["a b", "a c"], "continuation": "d", "gold": 2}',
            "line 1: gold = 2; expected the number of a choice, 0 to 1",
        ),
        (
            "a.jsonl",
            '{"context_options": ["b", "c"], "continuation": "d", "gold": 0}',
            "line 1: context_options = ['b', 'c']; expected different texts that begin with the same words",
        ),
        (
            "a.jsonl",
            '{"context_options": ["a b", "a b"], "continuation": "d", "gold": 0}',
            "expected different texts",
        ),
        (
            "a.jsonl",
            '{"input": "a", "output": "b"}\n'
            '{"context_options": ["a b", "a c"], "continuation": "d", "gold": 0}',
            "a.jsonl, line 2: of another form",
        ),
        ("a.json.txt", "[]", "a.json.txt: unknown format '.txt'"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError) as error:
        FileTasks(glob=str(path)).build("files")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b'[\n{"input": "caf\xe9", "output": "b"}]')
    (tmp_path / "torn.json.gz").write_bytes(gzip.compress(b"[]")[:-4])
    (tmp_path / "plain.json.gz").write_bytes(b"[]")
    for name, message in (
        ("latin.json", "line 2: not UTF-8"),
        ("torn.json.gz", "cannot be read"),
        ("plain.json.gz", "cannot be read"),
    ):
        with pytest.raises(InputError, match=f"{name}.*{message}"):
            FileTasks(glob=str(tmp_path / name)).build("files")
    with pytest.raises(InputError, match="no such file"):
        FileTasks(glob=str(tmp_path / "none*.json")).build("files")


@pytest.mark.parametrize(
    "settings",
    [
        {"glob": ""},
        {"test_share": 1},
        {"separator": "-> "},
        {"delimiter": ""},
        {"held_out": "a"},
        {"answer_context": "A: "},
        {"option_rule": "best"},
        {"corpus_metrics": ("bloo",)},
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"FileTasks\.\w+ = .*expected"):
        FileTasks(**{"glob": "a.json", **settings})

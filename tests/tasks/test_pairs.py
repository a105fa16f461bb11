"""Claims about tasks from lists of pairs."""

import gzip
from pathlib import Path

import pytest
import zstandard

from icl.errors import InputError
from icl.tasks import PairTasks


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def pairs_of(**settings: object) -> dict[str, dict[str, str]]:
    found = {}
    for task in PairTasks(**settings).build("pairs"):  # type: ignore[arg-type]
        examples = [q.example for split in ("train", "held_out") for q in task.queries(split)]
        found[task.name] = {example.input: example.target for example in examples}
    return found


WORDS = {f"word{i}": f"mot{i}" for i in range(40)}


@pytest.mark.parametrize("suffix", [".tsv", "", ".tsv.gz", ".tsv.zst"])
def test_a_list_is_a_task_and_its_reverse_another(tmp_path: Path, suffix: str) -> None:
    text = "".join(f"{a}\t{b}\n" for a, b in WORDS.items()).encode()
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
    (tmp_path / f"en-fr{suffix}").write_bytes(pack.get(suffix[-4:].lstrip("v"), bytes)(text))
    found = pairs_of(glob=str(tmp_path / "*"), reverse=True)
    assert found == {"en-fr": WORDS, "en-fr-reversed": {b: a for a, b in WORDS.items()}}


def test_columns_are_put_where_the_form_says(tmp_path: Path) -> None:
    write(tmp_path / "english", "".join(f"walk{i}\twalk{i}ed\tV;PST\n" for i in range(30)))
    (found,) = pairs_of(glob=str(tmp_path), input="{0} {2}", output="{1}").values()
    assert found["walk7 V;PST"] == "walk7ed"


@pytest.mark.parametrize(
    ("several", "answer"), [("first", "main"), ("whole", "main, admin, amine,"), ("skip", None)]
)
def test_typos_with_several_corrections(tmp_path: Path, several: str, answer: str | None) -> None:
    lines = ["amin->main, admin, amine,", "alloced->allocated", *(f"x{i}->y{i}," for i in range(20))]
    write(tmp_path / "typos.txt", "\n".join(lines))
    (found,) = pairs_of(glob=str(tmp_path / "typos.txt"), columns="->", several=several).values()
    assert found.get("amin") == answer and found["alloced"] == "allocated"


def test_both_directions_of_a_held_out_list_are_held_out(tmp_path: Path) -> None:
    for name in ("en-fi", "en-de"):
        write(tmp_path / name, "".join(f"{a}\t{b}\n" for a, b in WORDS.items()))
    tasks = PairTasks(glob=str(tmp_path / "*"), reverse=True, held_out=("*fi",), prefix="p_").build("")
    assert {task.name for task in tasks if not task.trained} == {"p_en-fi", "p_en-fi-reversed"}
    assert len(tasks) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\tb\nc\n", "line 2: 1 columns"),
        ("a\tb\n\t \n\tc\n", "line 3: an empty input or output"),
        ("", "0 training and 0 test"),
    ],
)
def test_a_malformed_list_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path / "list.tsv", text)
    with pytest.raises(InputError) as caught:
        PairTasks(glob=str(path)).build("")
    assert str(path) in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "PairTasks.glob"),
        ({"glob": "x", "columns": " "}, "PairTasks.columns"),
        ({"glob": "x", "input": "word"}, "PairTasks.input"),
        ({"glob": "x", "separator": " -> "}, "PairTasks.separator"),
        ({"glob": "x", "several": "last"}, "one of 'first', 'skip', 'whole'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        PairTasks(**settings)  # type: ignore[arg-type]

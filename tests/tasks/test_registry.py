"""Claims about the registry of task families."""

import dataclasses
import json

import pytest

from icl.errors import InputError
from icl.tasks import (
    FAMILIES,
    Affine,
    Cipher,
    FileTasks,
    Task,
    build_tasks,
    describe,
    family_class,
    rebuild,
    register,
)


def test_families_survive_json() -> None:
    families = {
        "cipher": Cipher(letters=5, lengths=(1, 3), length_weights=(0.5, 1)),
        "small/affine": Affine(prime=7),
        "files": FileTasks(glob="tasks/*.json", held_out=("a",), instructions={"b": "Say b."}),
    }
    assert rebuild(json.loads(json.dumps(describe(families)))) == families


def test_tasks_are_named_by_their_key() -> None:
    tasks = build_tasks({"affine": Affine(), "small/affine": Affine(prime=7)})
    assert {key: [task.name for task in made] for key, made in tasks.items()} == {
        "affine": ["affine"],
        "small/affine": ["small/affine"],
    }


def test_two_tasks_of_one_name_are_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Twice:
        def build(self, name: str) -> tuple[Task, ...]:
            return Affine().build("affine")

    with pytest.raises(InputError, match="two tasks are named 'affine'.*'affine'.*'twice'"):
        build_tasks({"affine": Affine(), "twice": Twice()})


def test_a_new_family_is_one_class_and_one_registration() -> None:
    @register("test_only")
    @dataclasses.dataclass(frozen=True)
    class Own:
        size: int = 3

        def build(self, name: str) -> tuple[Task, ...]:
            return Affine(prime=self.size).build(name)

    try:
        families = rebuild({"mine/test_only": {"size": 5}})
        assert families == {"mine/test_only": Own(5)}
        assert build_tasks(families)["mine/test_only"][0].name == "mine/test_only"
        with pytest.raises(ValueError, match="registered twice"):
            register("test_only")(Own)
    finally:
        del FAMILIES["test_only"]


def test_a_family_defined_anew_takes_its_place_and_another_does_not() -> None:
    """Running a notebook's cell again defines the same class again."""
    cell = """
@register("test_only")
@dataclasses.dataclass(frozen=True)
class {name}:
    size: int = {size}
"""

    def run(name: str, size: int) -> None:
        here = {"register": register, "dataclasses": dataclasses, "__name__": "__main__"}
        exec(cell.format(name=name, size=size), here)

    try:
        run("Own", 3)
        run("Own", 4)
        assert family_class("test_only")().size == 4
        with pytest.raises(ValueError, match="registered twice"):
            run("Other", 5)
    finally:
        FAMILIES.pop("test_only", None)


def test_unknown_names_are_bad_input() -> None:
    with pytest.raises(InputError, match="no task family 'cypher'"):
        family_class("easy/cypher")
    with pytest.raises(InputError, match="Cipher has no settings"):
        rebuild({"cipher": {"leters": 5}})
    with pytest.raises(InputError, match=r"Cipher.letters = 'x'"):
        rebuild({"cipher": {"letters": "x"}})

"""Imports point one way (design page, section 3), and nothing needs TensorFlow."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
MODULES = sorted((REPOSITORY / "icl").rglob("*.py"))

# What a package may import of its siblings, itself apart. `errors` and the types that many share are leaves.
ALLOWED = {
    "errors": set(),
    "figure_style": set(),
    "progress": set(),
    "tracking": {"errors"},
    "tasks": {"errors", "data.keys"},
    "data": {"errors", "tasks"},
    "parallel": {"errors"},
    "model": {"errors", "parallel"},
    "training": {"errors", "tasks", "data", "parallel", "model", "figure_style", "progress", "tracking"},
    "functions": {"errors", "data", "parallel", "model", "training", "figure_style", "tracking"},
    "interop.huggingface": {"errors", "data", "model", "progress", "training"},
    "evaluation": {
        "errors",
        "figure_style",
        "progress",
        "tracking",
        "tasks",
        "parallel",
        "model",
        "data.tokenizer",
        "data.keys",
        "interop.huggingface",
        "training.checkpoints",
        "training.description",
    },
}
BINARIES = {"train", "eval", "plan"}


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports, anywhere in it; `from a import b` counts as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def violations(path: Path) -> list[str]:
    """Imports of a module that the layout does not allow."""
    name = name_of(path)
    package = next((p for p in sorted(ALLOWED, key=len)[::-1] if f"{name}.".startswith(f"icl.{p}.")), "")
    found = []
    for imported in imports(path):
        top, _, inner = imported.partition(".")
        if top in ("tensorflow", "tf"):
            found.append(imported)
        if top == "gin" and name != "icl.config":
            found.append(imported)
        if top == "icl" and inner.split(".")[0] in BINARIES:
            found.append(imported)
        if top == "icl" and package in ALLOWED:
            allowed = ALLOWED[package] | {package}
            if not any(inner == root or inner.startswith(f"{root}.") for root in allowed):
                found.append(imported)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    assert violations(path) == []


def test_the_rule_sees_a_wrong_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_layout.REPOSITORY", tmp_path)
    path = tmp_path / "icl" / "model" / "wrong.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import gin\nfrom icl.training import step\nfrom icl import train\nfrom icl import errors\n"
    )
    assert violations(path) == ["gin", "icl.training.step", "icl.train", "icl.train"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))

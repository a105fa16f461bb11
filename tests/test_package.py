"""What is packed works without the repository: a wheel has all that the code reads, a source archive all."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import icl
from icl.evaluation.published import table
from icl.tasks import Scrambles

REPOSITORY = Path(__file__).parent.parent
SOURCES = ("icl", "gin", "tests", "tools", "experiments", "docs")


def files_below(folder: str) -> set[str]:
    """Files of a folder of the repository, without those that Python and other tools leave there."""
    paths = (path.relative_to(REPOSITORY) for path in (REPOSITORY / folder).rglob("*"))
    return {
        path.as_posix()
        for path in paths
        if (REPOSITORY / path).is_file()
        and path.suffix != ".pyc"
        and not any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    }


def build(source: Path, output: Path, *targets: str) -> None:
    arguments = [part for target in targets for part in ("--target", target)]
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(output), *arguments]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source archive of the tree."""
    folder = tmp_path_factory.mktemp("built")
    build(REPOSITORY, folder, "wheel", "sdist")
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel would put in site-packages."""
    folder = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run(installed: Path, folder: Path, *arguments: str) -> str:
    """What Python says in a folder with the unpacked wheel first on its path."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_its_data_and_every_gin_file_and_nothing_else(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in held if not name.startswith(f"icl-{icl.__version__}.dist-info/")}
    assert package == files_below("icl") | {f"icl/{name}" for name in files_below("gin")}
    assert {"icl/py.typed", "icl/gin/runs/smoke.gin"} < package
    assert {Path(name).suffix for name in package} >= {".csv", ".html", ".gz", ".gin", ".py"}


def test_the_source_archive_is_complete_and_builds_the_same_wheel(
    built: Path, wheel: Path, tmp_path: Path
) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    for folder in SOURCES:
        assert files_below(folder) == {
            path.relative_to(source).as_posix() for path in (source / folder).rglob("*") if path.is_file()
        }
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "constraints.txt"):
        assert (source / name).read_bytes() == (REPOSITORY / name).read_bytes()
    build(source, tmp_path / "again", "wheel")
    record = f"icl-{icl.__version__}.dist-info/RECORD"  # the hash of every file
    again = zipfile.ZipFile(tmp_path / "again" / wheel.name)
    assert again.read(record) == zipfile.ZipFile(wheel).read(record)


def test_commands_of_an_unpacked_wheel_find_gin_files_by_name_from_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    assert "--workdir" in run(installed, tmp_path, "-m", "icl.train", "--help")
    names = ("--gin_file", "runs/smoke.gin", "--gin_file", "gin/runs/smoke.gin")
    summary = run(installed, tmp_path, "-m", "icl.train", "--dry_run", *names)
    assert "parameters" in summary
    assert list(tmp_path.iterdir()) == []


CLIENT = """
import importlib.metadata

import icl
from icl.evaluation.published import table
from icl.tasks import Scrambles

print(icl.__file__)
print(icl.__version__, importlib.metadata.version("icl"))
print(len(table()), len(Scrambles().build("scrambles")))
"""


def test_a_client_of_an_unpacked_wheel_reads_its_version_and_its_tables(
    installed: Path, tmp_path: Path
) -> None:
    module, versions, counts = run(installed, tmp_path, "-c", CLIENT).splitlines()
    assert Path(module) == installed / "icl/__init__.py"
    assert versions == f"{icl.__version__} {icl.__version__}"
    assert counts == f"{len(table())} {len(Scrambles().build('scrambles'))}"

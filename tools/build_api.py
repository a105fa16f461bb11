"""Builds the API pages from the docstrings, as HTML that needs no server.

    python -m tools.build_api --output DIR [--modules icl.tasks,icl.model]
    python -m tools.build_api --check

A page for each module, those of the commands with their flags; DIR/index.html opens on what `icl` says of
itself. Exit code 1, and nothing written, where a module cannot be imported, or a public module, class,
function or method says nothing. A method may leave that to its base class, or to the protocol that its class
implements.
"""

import argparse
import importlib
import inspect
import os
import pkgutil
import sys
import typing
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pdoc.doc
import pdoc.render
from absl import flags

import icl
from icl import app
from icl.errors import InputError

COMMANDS = ("icl.train", "icl.eval", "icl.plan")


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the pages, or says what keeps them from being built."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--output", type=Path, help="folder to write; made if it is not there")
    what.add_argument("--check", action="store_true", help="say what is missing, and write nothing")
    parser.add_argument("--modules", help="comma-separated, with what is below them; all by default")
    settings = parser.parse_args(arguments)
    try:
        names = public_modules(settings.modules.split(",") if settings.modules else ["icl"])
        if settings.output:
            check_output(settings.output)
    except InputError as error:
        return app.refuse(str(error))
    problems = check(names)
    if settings.output and not problems:
        problems = write(names, settings.output)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{len(names)} pages" + (f": {settings.output / 'index.html'}" if settings.output else ""))
    return 1 if problems else 0


def public_modules(roots: Sequence[str]) -> list[str]:
    """The modules to document: the roots and all below them, those with a leading underscore left out.

    Raises:
      InputError: a root is no module of the package.
    """
    every = ["icl", *(module.name for module in pkgutil.walk_packages(icl.__path__, "icl."))]
    every = [name for name in every if not name.rpartition(".")[2].startswith("_")]
    for root in roots:
        if root not in every:
            raise InputError(f"--modules {root}: expected modules of the package, such as icl.tasks")
    return [name for name in every if any(f"{name}.".startswith(f"{root}.") for root in roots)]


def check_output(folder: Path) -> None:
    """Refuses a folder with other things in it: pages are written over earlier pages only.

    Raises:
      InputError: names the folder.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: expected a folder, this is a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "search.js").is_file():
        raise InputError(f"--output {folder}: expected an empty folder, or one of earlier API pages")


def check(names: Sequence[str]) -> list[str]:
    """A line for each module that cannot be imported, and for each public name that says nothing."""
    modules: list[ModuleType] = []
    problems = []
    for name in names:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            problems.append(f"{name} cannot be imported: {type(error).__name__}: {error}")
            continue
        if name in COMMANDS:
            tell_flags(module)
        modules.append(module)
    inherit_from_protocols(modules)
    return problems + [f"{name} has no docstring" for module in modules for name in undocumented(module)]


def write(names: Sequence[str], output: Path) -> list[str]:
    """Writes the pages of modules that were checked; returns what pdoc warns of."""
    pdoc.render.configure(docformat="google", footer_text=f"icl {icl.__version__}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pages = {name: pdoc.doc.Module(sys.modules[name]) for name in names}
        for name, page in pages.items():
            # By itself pdoc leaves out modules that the package's __all__ does not name.
            page.submodules = [below for other, below in pages.items() if other.rpartition(".")[0] == name]
        for name, page in pages.items():
            path = output / f"{name.replace('.', '/')}.html"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pdoc.render.html_module(page, pages), encoding="utf-8")
        (output / "index.html").write_text(pdoc.render.html_index(pages), encoding="utf-8")
        (output / "search.js").write_text(pdoc.render.search_index(pages), encoding="utf-8")
    return [str(warning.message) for warning in caught if "pdoc" in Path(warning.filename).parts]


def tell_flags(command: ModuleType) -> None:
    """Puts a command's flags below its docstring, and takes them back: two commands have a `--rungs`."""
    help_text = flags.FLAGS.module_help(command)
    command.__doc__ = f"{command.__doc__}\n```text\n{help_text.strip()}\n```\n"
    for flag in flags.FLAGS.flags_by_module_dict().get(command.__name__, []):
        delattr(flags.FLAGS, flag.name)


def inherit_from_protocols(modules: Sequence[ModuleType]) -> None:
    """Gives methods without a docstring that of the protocol which their class implements."""
    classes = [cls for module in modules for cls in _own_classes(module)]
    for protocol in filter(_is_protocol, classes):
        members = {name: value for name, value in vars(protocol).items() if not name.startswith("_")}
        for cls in classes:
            if not _is_protocol(cls) and members.keys() <= {*dir(cls), *inspect.get_annotations(cls)}:
                for name, value in members.items():
                    method = vars(cls).get(name)
                    if inspect.isfunction(method) and not method.__doc__:
                        method.__doc__ = value.__doc__


def undocumented(module: ModuleType) -> Iterator[str]:
    """Public names of a module, itself among them, that say nothing; fields and constants need not."""
    page = pdoc.doc.Module(module)
    if not page.docstring:
        yield module.__name__
    for member in page.own_members:
        if member.name.startswith("_") or isinstance(member, pdoc.doc.Variable | pdoc.doc.Module):
            continue
        if not member.docstring:
            yield member.fullname
        if isinstance(member, pdoc.doc.Class):
            yield from (
                method.fullname
                for method in member.own_members
                if isinstance(method, pdoc.doc.Function)
                and not method.name.startswith("_")
                and not method.docstring
            )


def _own_classes(module: ModuleType) -> Iterator[type]:
    for value in vars(module).values():
        if inspect.isclass(value) and value.__module__ == module.__name__:
            yield value


def _is_protocol(cls: type) -> bool:
    return typing.Protocol in cls.__bases__


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # pages say the same wherever they are built
    sys.exit(main())

"""Reads gin files into the frozen dataclasses that the rest of the package takes.

The only module that imports gin, and only gin's parser: nothing is registered, no global state is kept,
and every binding remembers its file and line for the error message. The names in a gin file are those of
the classes: `ModelConfig.embed_dim = 64`. A scope before the name is a rung of the ladder
(`xs/ModelConfig.embed_dim = 16`), an entry of the mixture (`long/Cipher.letters = 8` for
`DataConfig.weights = {'long/cipher': 1}`), or a rung and an entry (`xs/long/Cipher.letters = 4`).
"""

import contextlib
import dataclasses
import difflib
import io
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import gin.config_parser as config_parser

from icl.data.config import DataConfig
from icl.errors import InputError, check_types
from icl.evaluation.config import EvalConfig
from icl.functions.config import FunctionConfig, FunctionRun
from icl.model.config import ModelConfig
from icl.parallel.mesh import MeshConfig
from icl.start import find_start, started_model
from icl.tasks import FAMILIES, family_class
from icl.tracking.config import TrackingConfig
from icl.training.config import Run, RunConfig, TrainConfig
from icl.training.fine_tuning import FineTuneConfig
from icl.training.optimizer import OptimizerConfig

_Settings = TypeVar("_Settings")
_Loaded = TypeVar("_Loaded", bound=Run)

_PACKAGE = Path(__file__).parent
_GIN_FOLDER = next(folder for folder in (_PACKAGE / "gin", _PACKAGE.parent / "gin") if folder.is_dir())
"""Inside an installed package; beside it in a checkout."""


@dataclasses.dataclass(frozen=True)
class Ladder:
    """The rungs of a ladder: models that differ in what is bound under their names as scopes."""

    rungs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        for rung in self.rungs:
            if not re.fullmatch(r"[A-Za-z_]\w*", rung):
                raise InputError(f"Ladder.rungs: {rung!r}: expected letters, digits and _, for a gin scope")
        if len(set(self.rungs)) < len(self.rungs):
            raise InputError(f"Ladder.rungs = {self.rungs!r}: expected each rung once")


class EvalRun(NamedTuple):
    """An evaluation: its settings, those that replace what a checkpoint says of its tasks, mesh and tracking.

    `overrides` has by entry of the mixture (`files`, `words/files`) what is bound for that family, for
    instance another path of its files. `mesh` is None where nothing says how devices are divided.
    """

    config: EvalConfig
    overrides: dict[str, dict[str, Any]]
    mesh: MeshConfig | None
    tracking: TrackingConfig


def load_runs(
    gin_files: Sequence[str], bindings: Sequence[str] = (), rungs: Sequence[str] | None = None
) -> list[RunConfig]:
    """The training runs that gin files describe: one for each rung, or a single one without a ladder.

    Args:
      gin_files: Paths, or names inside the package's gin folder (`runs/smoke.gin`); later ones win.
      bindings: Further lines of gin that win over the files.
      rungs: The rungs to load, instead of all of `Ladder.rungs`.

    Raises:
      InputError: names the file, the line and the binding, and what was expected.
    """
    return _load_rungs(_parse(gin_files, bindings), rungs, _load_run)


def load_function_runs(
    gin_files: Sequence[str], bindings: Sequence[str] = (), rungs: Sequence[str] | None = None
) -> list[FunctionRun]:
    """The training runs on functions (`icl.functions`) that gin files describe; all else as `load_runs`."""
    return _load_rungs(_parse(gin_files, bindings), rungs, _load_function_run)


def load_eval(gin_files: Sequence[str], bindings: Sequence[str] = ()) -> "EvalRun":
    """What gin files say of an evaluation.

    Raises:
      InputError: names the file, the line and the binding, and what was expected.
    """
    parsed = _parse(gin_files, bindings)
    rungs = parsed.build(Ladder, [""]).rungs
    overrides = {}
    for name, cls in FAMILIES.items():
        for scope in parsed.scopes(cls):
            if scope.partition("/")[0] not in rungs:
                overrides[f"{scope}/{name}" if scope else name] = parsed.values(cls, [scope])
    parsed.check_scopes(rungs, {_scope(entry) for entry in overrides})
    mesh = parsed.build(MeshConfig, [""]) if parsed.bound(MeshConfig, [""]) else None
    tracking = parsed.build(TrackingConfig, [""])
    return EvalRun(parsed.build(EvalConfig, [""]), overrides, mesh, tracking)


def config_text(run: Run) -> str:
    """Every setting of a run as gin text; loading it gives the same run again."""
    lines = ["# Every setting of this run, defaults included."]
    if run.rung:
        lines += ["", f"Ladder.rungs = ({run.rung!r},)"]
    parts: list[tuple[str, Any]] = [
        ("", part) for part in (run.model, run.data, run.optimizer, run.train, run.mesh, run.tracking)
    ]
    if run.fine_tune != FineTuneConfig():
        parts.append(("", run.fine_tune))
    parts += [(_scope(entry), family) for entry, family in run.families.items()]
    for scope, part in parts:
        name = "/".join(filter(None, (scope, type(part).__name__)))
        lines.append("")
        for field in dataclasses.fields(part):
            lines.append(f"{name}.{field.name} = {getattr(part, field.name)!r}")
    return "\n".join(lines) + "\n"


def find_gin_file(name: str, beside: Path | None = None) -> Path:
    """The gin file of that path, or of that name in a folder given or in the package's gin folder.

    Raises:
      InputError: there is none, or it is a folder; tells of names like it.
    """
    own = [_GIN_FOLDER, _GIN_FOLDER.parent]  # the latter for gin/runs/smoke.gin, as paths in a checkout are
    for folder in [*([beside] if beside else []), Path(), *own]:
        if (folder / name).is_file():
            return folder / name
    problem = "is a folder" if Path(name).is_dir() else "does not exist"
    raise InputError(
        f"gin file {name!r} {problem}: expected a path, or a name in the package's gin folder{_near(name)}"
    )


def _near(name: str) -> str:
    """`; near: 'runs/smoke.gin'`: at most three gin files of the package that are spelt almost like it."""
    wanted = PurePosixPath(f"{name.removesuffix('.gin').removeprefix('gin/')}.gin")

    def likeness(known: PurePosixPath) -> float:
        pairs = ((str(wanted), str(known)), (wanted.name, known.name))
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    names = sorted(PurePosixPath(path.relative_to(_GIN_FOLDER)) for path in _GIN_FOLDER.rglob("*.gin"))
    near = sorted((known for known in names if likeness(known) > 0.8), key=likeness, reverse=True)[:3]
    return f"; near: {', '.join(repr(str(known)) for known in near)}" if near else ""


def _load_rungs(
    parsed: "_Bindings", rungs: Sequence[str] | None, load: Callable[["_Bindings", str], _Loaded]
) -> list[_Loaded]:
    ladder = parsed.build(Ladder, [""])
    for rung in rungs or ():
        if rung not in ladder.rungs:
            raise InputError(f"rung {rung!r}: expected one of Ladder.rungs = {ladder.rungs!r}")
    runs = {rung: load(parsed, rung) for rung in ladder.rungs or ("",)}
    parsed.check_scopes(ladder.rungs, {_scope(entry) for run in runs.values() for entry in run.families})
    return [runs[rung] for rung in rungs or runs]


def _load_run(parsed: "_Bindings", rung: str) -> RunConfig:
    scopes = ["", rung] if rung else [""]
    data = parsed.build(DataConfig, scopes)
    families = {}
    for entry in (*data.weights, *data.leave_out):
        scope = _scope(entry)
        inner = [scope, f"{rung}/{scope}" if rung else scope] if scope else []
        families[entry] = parsed.build(_family_class(entry, parsed, scopes), [*scopes, *inner])
    fine_tune = parsed.build(FineTuneConfig, scopes)
    with parsed.blame(scopes):
        start = find_start(fine_tune.checkpoint) if fine_tune.checkpoint else None
        started = started_model(start, parsed.values(ModelConfig, scopes)) if start else None
    parts = _parts(parsed, scopes, started)
    with parsed.blame(scopes):
        run = RunConfig(data=data, families=families, rung=rung, fine_tune=fine_tune, start=start, **parts)
    return dataclasses.replace(run, config_text=config_text(run))


def _load_function_run(parsed: "_Bindings", rung: str) -> FunctionRun:
    scopes = ["", rung] if rung else [""]
    data, parts = parsed.build(FunctionConfig, scopes), _parts(parsed, scopes)
    with parsed.blame(scopes):
        run = FunctionRun(data=data, rung=rung, **parts)
    return dataclasses.replace(run, config_text=config_text(run))


def _parts(parsed: "_Bindings", scopes: Sequence[str], model: ModelConfig | None = None) -> dict[str, Any]:
    """What every run has, whatever it learns from."""
    return {
        "model": model or parsed.build(ModelConfig, scopes),
        "optimizer": parsed.build(OptimizerConfig, scopes),
        "train": parsed.build(TrainConfig, scopes),
        "mesh": parsed.build(MeshConfig, scopes),
        "tracking": parsed.build(TrackingConfig, scopes),
    }


_RUNG_CLASSES = {
    cls.__name__: cls
    for cls in (
        *(ModelConfig, DataConfig, FunctionConfig, FineTuneConfig),
        *(OptimizerConfig, TrainConfig, MeshConfig, TrackingConfig),
    )
}


def _classes() -> dict[str, type]:
    """What gin files can bind, by name; families that a notebook has registered are among them."""
    return _RUNG_CLASSES | {cls.__name__: cls for cls in (Ladder, EvalConfig, *FAMILIES.values())}


def _known_class(name: str, where: str) -> type:
    known = _classes()
    if name not in known:
        raise InputError(f"{where}: unknown name {name!r}{_hint(name, known)}")
    return known[name]


def _fields(cls: type) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(cls) if field.init}


def _family_class(entry: str, parsed: "_Bindings", scopes: Sequence[str]) -> type[Any]:
    try:
        return family_class(entry)
    except InputError as error:
        raise InputError(
            f"DataConfig.weights: {error}{parsed.where(DataConfig, 'weights', scopes)}"
        ) from None


def _scope(entry: str) -> str:
    """`long` of the mixture's entry `long/cipher`; empty for `cipher`."""
    return entry.rpartition("/")[0]


def _hint(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of {', '.join(known)}"


class _Macro(str):
    """`%name` in a gin value: replaced by what `name = ...` says, wherever in the files that stands."""


class _Delegate(config_parser.ParserDelegate):
    """Says what gin's parser makes of `%macro` and `@reference`."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        raise ValueError(f"'@{scoped_configurable_name}': expected a plain value or a %macro")

    def macro(self, macro_name: str) -> _Macro:
        return _Macro(macro_name)


@dataclasses.dataclass(frozen=True)
class _Binding:
    value: Any
    where: str


class _Bindings:
    """What gin files bind: values and where they were set, by (scope, class) and field."""

    def __init__(self) -> None:
        self.by_class: dict[tuple[str, str], dict[str, _Binding]] = {}
        self.macros: dict[str, _Binding] = {}

    def scopes(self, cls: type) -> list[str]:
        """The scopes under which something is bound for a class."""
        return [scope for scope, name in self.by_class if name == cls.__name__]

    def bound(self, cls: type, scopes: Sequence[str]) -> dict[str, _Binding]:
        """The bindings of a class, by field; later scopes win."""
        found: dict[str, _Binding] = {}
        for scope in scopes:
            found |= self.by_class.get((scope, cls.__name__), {})
        return found

    def values(self, cls: type, scopes: Sequence[str]) -> dict[str, Any]:
        """The values bound for a class."""
        return {field: binding.value for field, binding in self.bound(cls, scopes).items()}

    def build(self, cls: type[_Settings], scopes: Sequence[str]) -> _Settings:
        """The settings of a class under scopes, of which later ones win."""
        values = self.values(cls, scopes)
        for field in _fields(cls).values():
            no_default = field.default is field.default_factory is dataclasses.MISSING
            if no_default and field.name not in values:
                name = "/".join(filter(None, (scopes[-1], cls.__name__)))
                raise InputError(
                    f"{name}.{field.name} is not set: expected a binding '{name}.{field.name} = ...'"
                )
        with self.blame(scopes):
            return cls(**values)

    def where(self, cls: type, field: str, scopes: Sequence[str]) -> str:
        """` (file, line)` of a binding; nothing where the field has its default."""
        binding = self.bound(cls, scopes).get(field)
        return f" ({binding.where})" if binding else ""

    @contextlib.contextmanager
    def blame(self, scopes: Sequence[str]) -> Iterator[None]:
        """Adds to an `InputError` that speaks of `Class.field` where that was bound."""
        try:
            yield
        except InputError as error:
            known = _classes()
            for name, field in re.findall(r"\b([A-Z]\w*)\.(\w+)", str(error)):
                where = self.where(known[name], field, scopes) if name in known else ""
                if where:
                    raise InputError(f"{error}{where}") from None
            raise

    def check_scopes(self, rungs: Iterable[str], entries: Iterable[str]) -> None:
        """Refuses bindings under a scope that nothing reads."""
        rungs, entries = set(rungs), set(entries) - {""}
        if both := rungs & entries:
            raise InputError(f"scope {both.pop()!r} is both a rung and an entry of the mixture: rename one")
        family_scopes = rungs | entries | {f"{rung}/{entry}" for rung in rungs for entry in entries}
        families = {cls.__name__ for cls in FAMILIES.values()}
        for (scope, name), fields in self.by_class.items():
            known = family_scopes if name in families else rungs if name in _RUNG_CLASSES else set()
            if scope and scope not in known:
                field, binding = next(iter(fields.items()))
                expected = f"one of {', '.join(sorted(known))}" if known else "no scope"
                raise InputError(
                    f"{binding.where}: scope of '{scope}/{name}.{field}' is unknown: expected {expected}"
                )

    def resolve_macros(self) -> None:
        """Puts the values of macros where they are used; an unused one is a binding without its class."""
        used: set[str] = set()
        for bound in self.by_class.values():
            for field, binding in bound.items():
                bound[field] = _Binding(self._resolved(binding.value, binding.where, (), used), binding.where)
        for name, macro in self.macros.items():
            if name not in used:
                raise InputError(
                    f"{macro.where}: nothing reads {name!r}: expected 'Class.setting = ...', or a '%{name}'"
                )

    def _resolved(self, value: Any, where: str, within: tuple[str, ...], used: set[str]) -> Any:
        if isinstance(value, _Macro):
            used.add(value)
            if value in within:
                raise InputError(f"{where}: macro '%{value}' refers to itself")
            if value not in self.macros:
                raise InputError(f"{where}: macro '%{value}' is not set: expected a binding '{value} = ...'")
            return self._resolved(self.macros[value].value, where, (*within, value), used)
        if isinstance(value, dict):
            return {key: self._resolved(item, where, within, used) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._resolved(item, where, within, used) for item in value)
        return value


def _parse(gin_files: Sequence[str], bindings: Sequence[str]) -> _Bindings:
    parsed = _Bindings()
    for name in gin_files:
        _read_file(find_gin_file(name), parsed, ())
    for text in bindings:
        _read_text(text, f"--gin_bindings {text!r}", None, parsed, ())
    parsed.resolve_macros()
    return parsed


def _read_file(path: Path, parsed: _Bindings, including: tuple[Path, ...]) -> None:
    if path.resolve() in including:
        raise InputError(f"gin file {str(path)!r} includes itself: expected includes without a circle")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"gin file {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    _read_text(text, str(path), path.parent, parsed, (*including, path.resolve()))


def _read_text(
    text: str, source: str, folder: Path | None, parsed: _Bindings, including: tuple[Path, ...]
) -> None:
    """Parses gin text into `parsed`; `source` names it in errors, includes are looked for in `folder`."""
    for statement in _statements(text, source):
        where = f"{source}, line {statement.location.line_num}" if folder else source
        if isinstance(statement, config_parser.IncludeStatement):
            _read_file(_included_file(statement.filename, folder, where), parsed, including)
        elif isinstance(statement, config_parser.ImportStatement):
            raise InputError(f"{where}: '{statement.format()}': expected bindings and includes, no imports")
        elif isinstance(statement, config_parser.BlockDeclaration):
            _known_class(statement.selector, where)
        elif not statement.arg_name:
            name = "/".join(filter(None, (statement.scope, statement.selector)))
            parsed.macros[name] = _Binding(statement.value, where)
        else:
            cls, field = _known_class(statement.selector, where), statement.arg_name
            if field not in _fields(cls):
                raise InputError(
                    f"{where}: {cls.__name__} has no setting {field!r}{_hint(field, _fields(cls))}"
                )
            bound = parsed.by_class.setdefault((statement.scope, cls.__name__), {})
            bound[field] = _Binding(statement.value, where)


def _included_file(name: str, folder: Path | None, where: str) -> Path:
    try:
        return find_gin_file(name, folder)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _statements(text: str, source: str) -> Iterator[Any]:
    """Statements of gin text; whatever its tokenizer and parser raise becomes one line."""
    try:
        yield from config_parser.ConfigParser(io.StringIO(text), _Delegate())
    except (SyntaxError, tokenize.TokenError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else error.args[1][0]
        raise InputError(f"{source}, line {line}: {_parse_problem(error.args[0])}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{source}: {_parse_problem(str(error))}") from None


def _parse_problem(message: str) -> str:
    """One line of what gin's parser says; a bad literal by its text, not by its syntax tree."""
    literal = re.search(r"Failed to parse token '(.*)'", message)
    problem = f"{literal[1]!r} is no literal" if literal else message.split("\n")[0]
    return f"gin cannot parse this: {problem}"

"""What the binaries share: the flags of settings, and bad input as one line and exit code 2, no traceback."""

import errno
import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import NoReturn

from absl import app, flags, logging

from icl import last_words
from icl.errors import InputError
from icl.host_memory import keep_freed_memory
from icl.tpus import has_tpu, has_tpu_compiler

GIN_FILE = flags.DEFINE_multi_string(
    "gin_file", [], "A gin file, by path or by name in the package's gin folder; later ones win."
)
GIN_BINDINGS = flags.DEFINE_multi_string("gin_bindings", [], "Lines of gin that win over the files.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be done, and stop.")

_OUTSIDE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOENT,
    errno.ENAMETOOLONG,
}
_OUTSIDE_TEXTS = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)))


def run(main: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Runs a binary's `main` under absl; never returns.

    Exit codes: that of `main`; 2 for bad input and for what a disk or its permissions refuse; 130 for
    Ctrl-C. Anything else is a bug and keeps its traceback.
    """

    def with_flags(argv: Sequence[str]) -> int | None:
        if len(argv) > 1:
            return refuse(f"unexpected argument {argv[1]!r}: every setting is a --flag, see --help")
        return guarded(lambda: main(argv))

    prepare()
    app.run(with_flags, flags_parser=_parse_flags)
    raise AssertionError("absl's app.run does not return")


def prepare() -> None:
    """What every command sets before it imports JAX."""
    _quieten_threads()
    keep_freed_memory()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _pass_over_absent_tpus()
    logging.set_verbosity(logging.WARNING)


def guarded(main: Callable[[], int | None]) -> int | None:
    """Calls a command and returns its exit code; bad input and what a disk refuses end the process with 2."""
    try:
        code = main()
        last_words.take_back()
        return code
    except InputError as error:
        return _leave(refuse(str(error)))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        reason = outside_reason(error)
        if reason is None:
            raise
        return _leave(refuse(reason))


def refuse(reason: str) -> int:
    """Prints one line on stderr and returns exit code 2."""
    print("error: " + " ".join(reason.split()), file=sys.stderr, flush=True)
    return 2


def _leave(code: int) -> NoReturn:
    """Ends the process at once: background writers would still say what they cannot write."""
    last_words.take_back()
    sys.stdout.flush()
    os._exit(code)


def _pass_over_absent_tpus() -> None:
    """Keeps JAX from looking, with pages of errors, for TPUs where only their compiler is installed."""
    has_gpu_plugin = any(find_spec(f"jax_cuda{version}_plugin") for version in (12, 13))
    if has_tpu_compiler() and not has_tpu() and not has_gpu_plugin:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def _quieten_threads() -> None:
    """Keeps quiet about threads that a disk or its permissions end: the main thread tells."""
    report = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is None or outside_reason(arguments.exc_value) is None:
            report(arguments)

    threading.excepthook = hook


def outside_reason(error: BaseException) -> str | None:
    """One line for an error that a disk, a path or its permissions caused; None for any other."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _OUTSIDE:
            place = f"{cause.filename}: " if cause.filename else ""
            return f"{place}{os.strerror(cause.errno)}"
        for text in _OUTSIDE_TEXTS:
            if text in str(cause):
                return f"{text}: {str(cause)[:200]}"
        cause = cause.__cause__ or cause.__context__
    return None


def _parse_flags(argv: Sequence[str]) -> Sequence[str]:
    try:
        return flags.FLAGS(list(argv))
    except flags.Error as error:
        sys.exit(refuse(f"{error} (see --help)"))
    except SystemExit:  # absl exits with 1 after --help
        sys.exit(0)

"""Opens TFDS data sets for reading by index through `as_data_source`, so without TensorFlow.

Nothing is ever downloaded or prepared here: a data set that is not there, or is in TFRecord format, is an
`InputError` with the command that makes it readable.
"""

import contextlib
import difflib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

from icl.errors import InputError

TFDS_PREFIX = "tfds:"
_BATCH = 256


@functools.lru_cache(maxsize=8)
def open_builder(name: str, data_dir: str | None) -> Any:
    """The builder of a data set, or of a folder that holds one.

    Raises:
      InputError: there is none of that name.
    """
    import tensorflow_datasets as tfds

    try:
        with _quiet():
            if name[0] in "/.~" or "://" in name:
                return tfds.builder_from_directory(name)
            return tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # ValueError, AssertionError, ImportError ...: all mean a wrong name here
        message = f"{TFDS_PREFIX}{name}: {one_line(error)}"
        raise InputError(f"{message}{_suggestion(tfds, name)}") from error


def _suggestion(tfds: Any, name: str) -> str:
    """What a name with a typo might mean."""
    base, _, rest = name.partition("/")
    base = base.partition(":")[0]
    with contextlib.suppress(Exception), _quiet():
        builders = tfds.list_builders(with_community_datasets=False)
        if base not in builders:
            close = difflib.get_close_matches(base, builders, n=1)
            return f"; did you mean {close[0]!r}?" if close else "; see tfds.list_builders()"
        configs = list(tfds.builder_cls(base).builder_configs)
        close = difflib.get_close_matches(rest.partition(":")[0], configs, n=1)
        if rest and rest.partition(":")[0] not in configs and close:
            return f"; did you mean {base}/{close[0]}?"
    return ""


def check_prepared(builder: Any, name: str, data_dir: str | None) -> None:
    """Raises InputError where a data set is not there, or not in a format with random access."""
    from tensorflow_datasets.core import file_adapters

    folder = str(builder.data_path)
    if not builder.is_prepared():
        where = f" --data_dir={data_dir}" if data_dir else ""
        raise InputError(
            f"{TFDS_PREFIX}{name}: not prepared in {folder}; to download and prepare it: "
            f"tfds build {name} --file_format=array_record{where}"
        )
    if builder.info.file_format == file_adapters.FileFormat.TFRECORD:
        raise InputError(
            f"{TFDS_PREFIX}{name}: {folder} is in TFRecord format, which has no random access; to convert "
            'it, with tensorflow and importlib_resources installed: python -c "import tensorflow_datasets as '
            f"tfds; b = tfds.builder_from_directory('{folder}'); tfds.dataset_builders.store_as_tfds_dataset("
            f"name=b.name, version=str(b.version), features=b.info.features, data_dir='NEW_FOLDER', "
            "split_datasets={s: b.as_dataset(split=s) for s in b.info.splits}, file_format='array_record')\""
        )


@functools.lru_cache(maxsize=8)
def data_source(name: str, data_dir: str | None, split: str) -> Any:
    """The rows of a split by index.

    Raises:
      InputError: there is no such split, or it cannot be read.
    """
    try:
        with _quiet():
            return open_builder(name, data_dir).as_data_source(split=split)
    except InputError:
        raise
    except Exception as error:  # each format's reader has errors of its own
        raise InputError(f"{TFDS_PREFIX}{name}[{split}]: cannot be read: {one_line(error)}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that TFDS logs about folders which it looks into."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def one_line(error: BaseException) -> str:
    """The first line of an error's text."""
    lines = str(error).strip().split("\n")
    return lines[0].removeprefix("Failed to construct dataset ")[:300].rstrip(" :.")


def read_rows(name: str, data_dir: str | None, split: str, numbers: Sequence[int]) -> Iterator[Any]:
    """Rows of a split by number, in the order asked for.

    Raises:
      InputError: they cannot be read.
    """
    source = data_source(name, data_dir, split)
    for start in range(0, len(numbers), _BATCH):
        try:
            rows = source.__getitems__(list(numbers[start : start + _BATCH]))
        except Exception as error:  # each format's reader has errors of its own
            raise InputError(f"{TFDS_PREFIX}{name}[{split}]: cannot be read: {one_line(error)}") from error
        yield from rows

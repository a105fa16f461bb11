"""Documents of TFDS data sets, read by index through `as_data_source`, so without TensorFlow.

Nothing is ever downloaded or prepared here: a data set that is not there, or is in TFRecord format, is an
`InputError` with the command that makes it readable.
"""

import contextlib
import dataclasses
import difflib
import functools
import re
from collections.abc import Iterator
from typing import Any

from absl import logging

from icl.data.keys import digest
from icl.errors import InputError

TFDS_PREFIX = "tfds:"
_SPEC = re.compile(r"tfds:(?P<name>[^\[\]#]+)(\[(?P<split>.+)\])?(#(?P<field>.+))?", re.DOTALL)
_BATCH = 256


@dataclasses.dataclass(frozen=True)
class TfdsPiece:
    """Records [start, stop) of a split."""

    builder: str
    data_dir: str | None
    split: str
    field: str
    content: str
    start: int
    stop: int
    size: int

    @property
    def name(self) -> str:
        return f"{TFDS_PREFIX}{self.builder}[{self.split}], records {self.start} to {self.stop}"

    def documents(self) -> Iterator[str]:
        source = _data_source(self.builder, self.data_dir, self.split)
        for start in range(self.start, self.stop, _BATCH):
            numbers = range(start, min(start + _BATCH, self.stop))
            try:
                records = source.__getitems__(list(numbers))
            except Exception as error:  # each format's reader has errors of its own
                raise InputError(f"{self.name}: cannot be read: {_one_line(error)}") from error
            for number, record in zip(numbers, records, strict=True):
                yield self._text(record[self.field], number)

    def _text(self, value: Any, number: int) -> str:
        """Real data sets give bytes, TFDS's mock data gives str."""
        try:
            return value.decode() if isinstance(value, bytes) else str(value)
        except UnicodeDecodeError as error:
            where = f"{TFDS_PREFIX}{self.builder}[{self.split}], record {number}"
            raise InputError(f"{where}: {self.field} is not UTF-8 ({error.reason})") from error

    def fingerprint(self) -> str:
        return digest("tfds", self.content, self.split, self.field, self.start, self.stop)


@dataclasses.dataclass(frozen=True)
class TfdsSplit:
    """A split of a prepared data set, and the feature that holds its text."""

    builder: str
    split: str
    field: str
    content: str
    num_records: int
    num_bytes: int

    def piece(self, data_dir: str | None) -> TfdsPiece:
        """All of it as one piece."""
        return TfdsPiece(
            self.builder, data_dir, self.split, self.field, self.content, 0, self.num_records, self.num_bytes
        )


def open_tfds(source: str, data_dir: str | None = None) -> TfdsSplit:
    """Opens what `tfds:NAME[SPLIT]#FIELD` names; NAME may be a folder that holds a prepared data set.

    Raises:
      InputError: there is no such data set, configuration, version, split or field; or it is not prepared in
        a format with random access.
    """
    match = _SPEC.fullmatch(source)
    if not match:
        raise InputError(f"{source!r}: expected tfds:NAME, tfds:NAME[SPLIT] or tfds:NAME[SPLIT]#FIELD")
    name, split, field = match["name"], match["split"] or "train", match["field"]
    builder = _builder(name, data_dir)
    _check_prepared(builder, name, data_dir)
    info = builder.info
    try:
        chosen = info.splits[split]
    except (KeyError, ValueError, AssertionError) as error:
        splits = ", ".join(sorted(info.splits))
        raise InputError(f"{TFDS_PREFIX}{name}: no split {split!r}; there are {splits}") from error
    whole = info.splits[re.split(r"[\[+]", split)[0]]
    share = chosen.num_examples / max(1, whole.num_examples)
    return TfdsSplit(
        builder=name,
        split=split,
        field=_text_field(builder, name, field),
        content=digest(info.full_name, whole.num_examples, whole.num_bytes),
        num_records=chosen.num_examples,
        num_bytes=int(whole.num_bytes * share),
    )


@functools.lru_cache(maxsize=8)
def _builder(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    try:
        with _quiet():
            if name[0] in "/.~" or "://" in name:
                return tfds.builder_from_directory(name)
            return tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # ValueError, AssertionError, ImportError ...: all mean a wrong name here
        message = f"{TFDS_PREFIX}{name}: {_one_line(error)}"
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


def _check_prepared(builder: Any, name: str, data_dir: str | None) -> None:
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


def _text_field(builder: Any, name: str, field: str | None) -> str:
    """The feature that holds the text."""
    features = dict(builder.info.features.items()) if hasattr(builder.info.features, "items") else {}
    texts = [
        key
        for key, feature in features.items()
        if feature.shape == ()
        and str(getattr(feature, "np_dtype", "")) in ("object", "<class 'object'>", "str")
    ]
    wanted = field or "text"
    if wanted not in texts:
        raise InputError(
            f"{TFDS_PREFIX}{name}: no text under {wanted!r}; expected #FIELD with one of {sorted(texts)}"
        )
    return wanted


@functools.lru_cache(maxsize=8)
def _data_source(name: str, data_dir: str | None, split: str) -> Any:
    try:
        with _quiet():
            return _builder(name, data_dir).as_data_source(split=split)
    except InputError:
        raise
    except Exception as error:  # each format's reader has errors of its own
        raise InputError(f"{TFDS_PREFIX}{name}[{split}]: cannot be read: {_one_line(error)}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that TFDS logs about folders which it looks into."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _one_line(error: BaseException) -> str:
    """The first line of an error's text."""
    lines = str(error).strip().split("\n")
    return lines[0].removeprefix("Failed to construct dataset ")[:300].rstrip(" :.")

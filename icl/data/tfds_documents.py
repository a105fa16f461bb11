"""Documents of TFDS data sets, read by index through `as_data_source`, so without TensorFlow.

Nothing is ever downloaded or prepared here: a data set that is not there, or is in TFRecord format, is an
`InputError` with the command that makes it readable.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from icl.data.keys import digest
from icl.errors import InputError
from icl.tasks.tfds_source import TFDS_PREFIX, check_prepared, open_builder, read_rows

_SPEC = re.compile(r"tfds:(?P<name>[^\[\]#]+)(\[(?P<split>.+)\])?(#(?P<field>.+))?", re.DOTALL)


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
        numbers = range(self.start, self.stop)
        rows = read_rows(self.builder, self.data_dir, self.split, numbers)
        for number, row in zip(numbers, rows, strict=True):
            yield self._text(row[self.field], number)

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
    builder = open_builder(name, data_dir)
    check_prepared(builder, name, data_dir)
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

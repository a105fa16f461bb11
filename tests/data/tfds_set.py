"""Data sets that tests prepare with TFDS's own code, in ArrayRecord format, without TensorFlow."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered

Splits = Mapping[str, Iterable[Mapping[str, Any]]]


def prepare_set(
    data_dir: Path, name: str, features: Mapping[str, Any], splits: Splits, version: str = "1.0.0"
) -> Path:
    """Prepares rows as a version of a data set, which may be called as one of TFDS's own; its folder."""

    class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        VERSION = tfds.core.Version(version)

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(dict(features)))

        def _split_generators(self, dl_manager: Any) -> Any:
            return {split: enumerate(rows) for split, rows in splits.items()}

        def _generate_examples(self) -> Iterator[Any]:
            raise NotImplementedError

    Prepared.name = name
    with registered.skip_registration():
        builder = Prepared(data_dir=str(data_dir), file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_path)

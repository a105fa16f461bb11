"""The mixture of the four synthetic families that the tests of rows draw from."""

from collections.abc import Mapping
from typing import Any

import pytest

from icl.tasks import Affine, Cipher, PositionMap, Task, WordLabel, build_tasks

WEIGHTS = {"cipher": 5, "position_map": 6, "word_label": 2, "affine": 4}


@pytest.fixture(scope="session")
def weights() -> dict[str, float]:
    return dict(WEIGHTS)


@pytest.fixture(scope="session")
def families() -> dict[str, Any]:
    return {
        "cipher": Cipher(),
        "position_map": PositionMap(),
        "word_label": WordLabel(),
        "affine": Affine(),
    }


@pytest.fixture(scope="session")
def tasks(families: dict[str, Any]) -> Mapping[str, tuple[Task, ...]]:
    return build_tasks(families)

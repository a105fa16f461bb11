"""Settings of an evaluation that make no sense are refused by field, value and what was expected."""

from typing import Any

import pytest

from icl.errors import InputError
from icl.evaluation.config import EvalConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ks", ()),
        ("ks", (-1, 2)),
        ("ks", (4, 2)),
        ("ks", (1, 1)),
        ("ks", "16"),
        ("instruction", ()),
        ("instruction", (True, True)),
        ("tasks", ("a", "a")),
        ("seeds", 0),
        ("seeds", 2.5),
        ("queries", 0),
        ("batch_rows", -1),
        ("max_new_tokens", -1),
        ("split", "test"),
        ("demonstrations", "random"),
        ("bootstrap", 3),
    ],
)
def test_bad_settings_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"EvalConfig.{field} = .*expected"):
        EvalConfig(**{field: value})

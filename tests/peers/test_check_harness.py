"""The harness's model `icl` and its Hugging Face model say the same to every request; wants extra `peers`."""

import dataclasses
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytest.importorskip("lm_eval")

from icl.interop.lm_eval import IclLM
from tools import check_harness

FEW = ("--documents", "6", "--rounds", "1", "--batch_sizes", "4")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_models_of_the_harness_say_the_same() -> None:
    assert check_harness.main(FEW) == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", ["options", "text"])
def test_a_context_cut_one_token_earlier_is_noticed(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make = IclLM.__init__

    def shorter(self: Any, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        self._args = dataclasses.replace(self._args, max_length=self._args.max_length - 1)

    monkeypatch.setattr(IclLM, "__init__", shorter)
    assert check_harness.main([*FEW, "--cases", case]) == 1

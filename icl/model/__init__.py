"""The transformer as pure functions of (config, parameters, tokens)."""

from icl.model.cache import Cache, crop, extend, extend_and_score, extend_to_last, init_cache, prefill, share
from icl.model.config import ModelConfig
from icl.model.decoding import Hypotheses, beam_search, greedy, sample
from icl.model.transformer import (
    abstract_params,
    check_mesh,
    flops_per_token,
    hidden_states,
    init_params,
    init_sharded,
    logical_axes,
    logits,
    num_non_embedding_params,
    num_params,
    param_shardings,
    unembed,
)

__all__ = [
    "Cache",
    "Hypotheses",
    "ModelConfig",
    "abstract_params",
    "beam_search",
    "check_mesh",
    "crop",
    "extend",
    "extend_and_score",
    "extend_to_last",
    "flops_per_token",
    "greedy",
    "hidden_states",
    "init_cache",
    "init_params",
    "init_sharded",
    "logical_axes",
    "logits",
    "num_non_embedding_params",
    "num_params",
    "param_shardings",
    "prefill",
    "sample",
    "share",
    "unembed",
]

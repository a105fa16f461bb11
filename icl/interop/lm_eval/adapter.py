"""The evaluation harness's model `icl`: likelihoods, rolling likelihoods and generated text.

The harness asks in strings and its answers are to be those of its Hugging Face model (`HFLM` of lm-eval
0.4.13) with the same weights, so texts are encoded and cut as that does it: a context gives its trailing
white space to the continuation, the continuation's tokens are those that follow as many as the context has,
what is too long loses its start (the start token too), and a rolling likelihood counts the start token that
the tokenizer sets before a text. Three cases end that model's run and not ours: a continuation that merges
with the end of the context so that no token of its own is left is scored from where the two part; one that
is longer than the context is read in windows; a context without tokens is replaced by the start token.

What prompts share is read once (`icl.interop.lm_eval.sharing`), by the scorer of `icl.eval`.
"""

import dataclasses
import functools
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook, TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string
from tqdm import tqdm

from icl.data.keys import digest
from icl.data.tokenizer import Tokenizer
from icl.errors import InputError
from icl.evaluation.prompts import Tokens, common_prefix
from icl.evaluation.requests import Ask
from icl.evaluation.scoring import Answer, Decoding, Scorer, until_end
from icl.evaluation.stops import stop_transitions
from icl.interop.lm_eval.generation import Generation
from icl.interop.lm_eval.loading import ModelArgs, in_memory, load
from icl.interop.lm_eval.sharing import group_requests, static_shapes
from icl.model import ModelConfig

_OPTIONS = 32
"""So many options, at most, are scored one after the other behind one reading of their prompt."""
_LONG_OPTIONS = 4
"""Options this many times as long as their prompt are read each for itself: side by side, not in turn."""
_OWNER = "icl: whose answers these are"
_log = logging.getLogger(__name__)

Scored = tuple[float, bool]
Encoded = tuple[tuple[str, str] | None, list[int], list[int]]
"""A request of the harness: its strings, and the tokens of context and continuation."""


@dataclasses.dataclass(frozen=True)
class _Continuation:
    """Tokens of which those from `start` on are scored; the last is foretold by all others."""

    tokens: tuple[int, ...]
    start: int


@register_model("icl")
class IclLM(TemplateLM):
    """A model of ours for the harness: of a checkpoint, or in memory."""

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        *,
        config: ModelConfig | None = None,
        params: Any = None,
        tokenizer: Tokenizer | None = None,
        **arguments: Any,
    ) -> None:
        """Loads the checkpoint, or takes the model that is given.

        Args:
          checkpoint: A run's folder, one of its `checkpoints/STEP`, or hf:DIR, a Hugging Face folder.
          config: Instead of a checkpoint, with parameters and tokenizer: the model.
          params: Its parameters, where they are to stay.
          tokenizer: Its tokenizer.
          arguments: See `ModelArgs`.

        Raises:
          InputError: there is no such checkpoint or argument, or one has no such value.
        """
        super().__init__()
        self._args = args = ModelArgs.of(arguments)
        partitioner = args.partitioner()
        if checkpoint is not None:
            self._loaded = load(str(checkpoint), args.step, partitioner)
        elif config is not None and params is not None and tokenizer is not None:
            self._loaded = in_memory(config, params, tokenizer)
        else:
            raise InputError(
                "model_args: expected checkpoint=RUN; in Python, that or config, params and tokenizer"
            )
        config = self._loaded.config
        longest = config.max_length
        if (args.max_length or 0) > longest:
            raise InputError(
                f"model_args: max_length = {args.max_length}: expected at most {longest}, the model's"
            )
        self._tokenizer = self._loaded.tokenizer
        self._encode = functools.lru_cache(maxsize=256)(lambda text: tuple(self._tokenizer.encode(text)))
        self._scorer = Scorer(config, self._loaded.params, args.rows, self._tokenizer.pad_id, partitioner)
        self._end_id = next(iter(self._tokenizer.end_ids), self._tokenizer.pad_id)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "IclLM":
        """As the harness's, but `model_args` win over its flags instead of clashing with them."""
        flags = {name: value for name, value in (additional_config or {}).items() if value is not None}
        arguments = {**flags, **arg_dict}
        arguments.pop("trust_remote_code", None)  # the harness's flag is for data sets, too
        return cls(**arguments)

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> "IclLM":
        """As `create_from_arg_obj`, of "checkpoint=runs/mine,step=1000"."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a generated text."""
        return self._end_id

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is replaced by."""
        given = self._args.prefix_token_id
        return self._tokenizer.start_id if given is None else given

    @property
    def max_length(self) -> int:
        """The context in tokens."""
        return self._args.max_length or self._loaded.config.max_length

    @property
    def max_gen_toks(self) -> int:
        """Tokens generated at most, where a task does not say."""
        return self._args.max_gen_toks

    @property
    def batch_size(self) -> int:
        """Requests that are read together."""
        return self._args.rows

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer by its content, for the harness's cache of requests."""
        return f"{self._tokenizer.kind}-{self._tokenizer.fingerprint}"

    def get_model_info(self) -> dict[str, Any]:
        """What the results say of the model: its size, step, data, versions."""
        return {f"model_{name}": value for name, value in self._loaded.info.items()} | {
            "model_max_length": self.max_length
        }

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Takes the harness's cache of answers, which does not know whose they are.

        Raises:
          InputError: they are another model's.
        """
        held = cache_hook.dbdict
        if held is not None:
            ours = digest(self._loaded.content(), repr(dataclasses.replace(self._args, batch_size=None)))
            if held.get(_OWNER, ours) != ours or (len(held) and _OWNER not in held):
                raise InputError(
                    f"--use_cache {held.filename}: holds answers of another model, or to other model_args; "
                    "expected another path"
                )
            held[_OWNER] = ours
        super().set_cache_hook(cache_hook)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text, behind those that stand before every text, unless it begins with the first."""
        tokens = list(self._encode(string))
        adds = self._args.add_bos_token if add_special_tokens is None else add_special_tokens
        if add_special_tokens is None and tokens[:1] == [self.prefix_token_id]:
            adds = False
        return tokens if adds is False else [*self._tokenizer.prompt_start, *tokens]

    def tok_decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; special ones have none."""
        return self._tokenizer.decode(tokens)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Scored]:
        """Log-likelihood (nats) of each continuation, and whether greedy decoding would give it."""
        pairs: list[tuple[str, str]] = [request.args for request in requests]
        encoded = [
            (pair, *self._encode_pair(*pair))
            for pair in tqdm(pairs, desc="Tokenizing inputs", disable=disable_tqdm)
        ]
        return self._loglikelihood_tokens(encoded, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood (nats) of each text, read in disjoint windows of the context's length."""
        texts: list[str] = [request.args[0] for request in requests]
        windows = [list(self._windows(self.tok_encode(text), self.prefix_token_id)) for text in texts]
        scored = self._score([window for own in windows for window in own], disable_tqdm)
        remaining, sums = iter(scored), []
        for text, own in zip(texts, windows, strict=True):
            sums.append(math.fsum(next(remaining)[0] for _ in own))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), sums[-1])
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text that follows each context, up to where its task lets it end.

        Raises:
          InputError: a task asks for what is not implemented, or leaves no room for its context.
        """
        groups: dict[Generation, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            groups[Generation.of(request.args[1], self.max_gen_toks)].append(number)
        texts = [""] * len(requests)
        with tqdm(total=len(requests), desc="Generating text", disable=disable_tqdm) as bar:
            for how, numbers in groups.items():
                for place, text in self._generate([requests[n].args[0] for n in numbers], how):
                    request = requests[numbers[place]]
                    texts[numbers[place]] = text
                    self.cache_hook.add_partial("generate_until", request.args, text)
                    bar.update()
        return texts

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of both; there is at least one of the context, and none of a continuation that adds none."""
        if not context:
            tokens = self.tok_encode(continuation, add_special_tokens=False)
            if tokens[:1] == [self.prefix_token_id]:
                return tokens[:1], tokens[1:]
            return [self.prefix_token_id], tokens
        context_ids, own_ids = super()._encode_pair(context, continuation)
        if not own_ids:
            whole = self.tok_encode(context + continuation)
            seam = common_prefix(context_ids, whole)
            context_ids, own_ids = whole[:seam], whole[seam:]
        return context_ids or [self.prefix_token_id], own_ids

    def _loglikelihood_tokens(
        self, requests: Sequence[Encoded], disable_tqdm: bool = False, **_: Any
    ) -> list[Scored]:
        """Log-likelihood of each continuation; an empty one is certain."""
        longest, number_cut = self.max_length, 0
        pieces: list[list[_Continuation]] = []
        for _strings, context, own in requests:
            number_cut += len(context) + len(own) > longest + 1
            if len(own) > longest:
                pieces.append(list(self._windows(own, context[-1])))
            else:
                tokens = [*context, *own][-(longest + 1) :]
                pieces.append([_Continuation(tuple(tokens), len(tokens) - len(own))] if own else [])
        if number_cut:
            _log.warning(
                "%d of %d requests exceed the context of %d tokens and lose their start",
                number_cut,
                len(requests),
                longest,
            )
        remaining = iter(self._score([piece for own in pieces for piece in own], disable_tqdm))
        answers = []
        for (strings, _context, _own), parts in zip(requests, pieces, strict=True):
            found = [next(remaining) for _ in parts]
            answers.append((math.fsum(value for value, _ in found), all(is_greedy for _, is_greedy in found)))
            if strings is not None:
                self.cache_hook.add_partial("loglikelihood", strings, answers[-1])
        return answers

    def _windows(self, tokens: list[int], before: int) -> Iterator[_Continuation]:
        """Tokens in windows of the context's length: each is scored once, with all the past that fits."""
        for window in get_rolling_token_windows(tokens, before, self.max_length, context_len=1):
            context, own = make_disjoint_window(window)
            yield _Continuation((*context, *own), len(context))

    def _score(self, continuations: Sequence[_Continuation], disable_tqdm: bool) -> list[Scored]:
        """Scores all; equal ones are read once."""
        counts = Counter(continuations)
        by_prompt: dict[tuple[int, ...], list[_Continuation]] = defaultdict(list)
        for each in counts:
            by_prompt[each.tokens[: each.start]].append(each)
        asks, asked = [], []
        for prompt, own in by_prompt.items():
            longest = max(len(each.tokens) - each.start for each in own)
            most = 1 if longest > _LONG_OPTIONS * len(prompt) else _OPTIONS
            for first in range(0, len(own), most):
                chosen = own[first : first + most]
                start = list(prompt)
                asks.append(Ask(start, [Tokens(start, list(c.tokens), c.start) for c in chosen]))
                asked.append(chosen)
        found: dict[_Continuation, Scored] = {}
        with tqdm(total=len(continuations), desc="Scoring continuations", disable=disable_tqdm) as bar:
            for number, answer in self._answers(asks, None):
                for each, scored in zip(asked[number], answer.options, strict=True):
                    is_greedy = bool(np.array_equal(scored.argmax, scored.tokens))
                    found[each] = float(scored.log_likelihoods.sum(dtype=np.float64)), is_greedy
                    bar.update(counts[each])
        return [found[each] for each in continuations]

    def _generate(self, contexts: Sequence[str], how: Generation) -> Iterator[tuple[int, str]]:
        """What follows each context, with its number; equal ones are read once where nothing is sampled."""
        room = self.max_length - how.max_tokens
        if room < 1:
            raise InputError(
                f"generation_kwargs: max_gen_toks = {how.max_tokens}: expected fewer than the context of "
                f"{self.max_length} tokens (--gen_kwargs max_gen_toks=...)"
            )
        numbers: dict[tuple[tuple[int, ...], int], list[int]] = defaultdict(list)
        drawn: Counter[tuple[int, ...]] = Counter()
        for number, context in enumerate(contexts):
            prompt = tuple(self.tok_encode(context)[-room:]) or (self.prefix_token_id,)
            numbers[prompt, drawn[prompt]].append(number)
            drawn[prompt] += how.temperature > 0
        seed = self._args.seed << 32
        asks = [Ask(list(prompt), (), generates=True, draw=seed + draw) for prompt, draw in numbers]
        owners = list(numbers.values())
        for asked, answer in self._answers(asks, how):
            text = self._tokenizer.decode(until_end(self._tokenizer, answer.generated[: how.max_tokens]))
            text = postprocess_generated_text(text, list(how.until), None)
            yield from ((number, text) for number in owners[asked])

    def _answers(self, asks: Sequence[Ask], how: Generation | None) -> Iterator[tuple[int, Answer]]:
        """What the model says, with the number of what it was asked."""
        requests = group_requests(asks, how.max_tokens if how else 0, self.batch_size)
        if not requests:
            return
        stops = stop_transitions(self._tokenizer, how.until if how else "", self._loaded.config.vocab_size)
        decoding = Decoding(self._end_id, length_rule="hf")
        if how:
            decoding = dataclasses.replace(
                decoding,
                beam_width=how.beam_width,
                length_penalty=how.length_penalty,
                temperature=how.temperature,
            )
        shapes = static_shapes(requests, self.max_length)
        for _, answers in self._scorer.answers(requests, shapes, stops, decoding):
            yield from ((key.k, answer) for key, answer in answers.items())

"""From trials to what a model reads: prompts in the order of a trie, each read from where it leaves the last.

All prompts of a trial (every K, the same without content, the answer context alone) are leaves of a trie over
token ids. Walked depth first, each is a branch: the KV cache is cut to what it shares with the branch before,
and the rest is read. The options of a prompt follow from its end. What is overwritten lies behind all that is
still to come, so one cache serves a trial in place, whatever its trie.
"""

import dataclasses
import itertools
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from icl.data.tokenizer import Tokenizer
from icl.evaluation.plan import Trial
from icl.evaluation.prompts import Tokens, common_prefix

_ROUNDED = 64
"""Caches are so many positions, or twice as many, and so on: few different ones are compiled."""
_SMALL = 512
"""A cache of so many positions is not made smaller."""
_SHRINKS = 0.7
"""Branches get a smaller cache where they need this part of the larger one, or less."""

Kind = Literal["query", "without_content", "unconditional", "channel"]


class Key(NamedTuple):
    """What a prompt is for: the kind of question, and the number of demonstrations before it."""

    kind: Kind
    k: int = 0


class Ask(NamedTuple):
    """A prompt as tokens, the options (or the gold answer) to score after it, and whether to generate.

    What is sampled is decided by the prompt and the number of the `draw`.
    """

    prompt: list[int]
    options: Sequence[Tokens]
    generates: bool = False
    draw: int = 0


class Option(NamedTuple):
    """An answer to score: `tokens`, prompt included, of which the first `cut` stand in the cache.

    Likelihoods count from position `start` on. What is read is `tokens[cut:-1]`: the token at `cut` is
    foretold by the prompt's end, and after the last one nothing is asked.
    """

    tokens: list[int]
    cut: int
    start: int


class Branch(NamedTuple):
    """A prompt of which the first `cut` tokens stand in the cache; its options, `order` their numbers."""

    key: Key
    tokens: list[int]
    cut: int
    options: list[Option]
    order: list[int]
    generates: bool
    draw: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """Prompts as tokens: a shared prefix, and branches to be read one after the other from one cache.

    Where other requests have the prefix too (`is_common`), every branch goes on from within it.
    """

    prefix: list[int]
    branches: list[Branch]
    budget: int
    is_common: bool = False

    @property
    def shape(self) -> "Shape":
        """The smallest batch that holds it."""
        return Shape(
            prefix=len(self.prefix),
            branch=max(len(branch.tokens) - branch.cut for branch in self.branches),
            ends=tuple(
                max([len(branch.tokens) + self.budget, *(len(option.tokens) for option in branch.options)])
                for branch in self.branches
            ),
            options=max(len(branch.options) for branch in self.branches),
            option=max(
                (len(o.tokens) - 1 - o.cut for branch in self.branches for o in branch.options), default=0
            ),
            new_tokens=self.budget,
        )


class Shape(NamedTuple):
    """Static sizes of a batch: prefix, branch, option and new tokens, and options a branch.

    `ends` has an entry a branch: where its longest prompt ends, with option or answer. `option` is 0 where
    each is a single token.
    """

    prefix: int
    branch: int
    ends: tuple[int, ...]
    options: int
    option: int
    new_tokens: int

    @property
    def positions(self) -> int:
        """Positions read for one request."""
        return self.prefix + len(self.ends) * (self.branch + self.new_tokens + self.options * self.option)

    def groups(self, longest: int | None) -> tuple[tuple[int, int], ...]:
        """Branches that share a cache, as (number of branches, capacity): shorter ones get a smaller one.

        Args:
          longest: what the model's positions allow; None sets no limit.
        """
        room = max(self.branch + self.new_tokens, self.branch + self.option)
        capacities: list[int] = []
        for end in self.ends:
            needed = -(-(end + room) // _ROUNDED) * _ROUNDED
            smaller = not capacities or (needed <= _SHRINKS * capacities[-1] and capacities[-1] > _SMALL)
            capacities.append(needed if smaller else capacities[-1])
        capacities[0] = max(capacities[0], self.prefix + room)
        counted = Counter(min(capacity, longest or capacity) for capacity in capacities)
        return tuple((number, capacity) for capacity, number in counted.items())


def trial_requests(trial: Trial, tokenizer: Tokenizer) -> list[Request]:
    """What has to be read for a trial: one request, and one of its own for the noisy channel."""
    rules, generates = trial.rules, trial.budget > 0
    asks: dict[Key, Ask] = {}
    for k in fitting_ks(trial):
        options = trial.options(tokenizer, k)
        asks[Key("query", k)] = Ask(options[0].prompt, options, generates)
        if "calibrated" in rules:
            options = trial.without_content(tokenizer, k)
            asks[Key("without_content", k)] = Ask(options[0].prompt, options)
    if "unconditional" in rules:
        options = trial.unconditional(tokenizer)
        asks[Key("unconditional")] = Ask(options[0].prompt, options)
    is_common = trial.settings.demonstrations == "fixed"
    requests = [make_request(trial.shared_prefix(tokenizer), asks, trial.budget, is_common=is_common)]
    if "channel" in rules:
        turned = trial.through_channel()
        options_at = {k: turned.options(tokenizer, k) for k in fitting_ks(trial)}
        asks = {Key("channel", k): Ask(found[0].prompt, found) for k, found in options_at.items()}
        requests.append(make_request(turned.shared_prefix(tokenizer), asks, 0, is_common=is_common))
    return requests


def fitting_ks(trial: Trial) -> list[int]:
    """The numbers of demonstrations that are asked of a trial, each as many as fit."""
    return sorted({min(k, trial.max_k) for k in trial.settings.ks})


def make_request(
    prefix: list[int], asks: Mapping[Key, Ask], budget: int, *, is_common: bool = False
) -> Request:
    """Prompts in the order of their trie, each with what it shares with the one before.

    Args:
      prefix: What is read first; other requests may begin with the same.
      asks: Prompts of one token or more, and their options.
      budget: Tokens that may be generated after a prompt.
      is_common: Whether other requests have the same prefix.
    """
    keys, branches, held = list(asks), list[Branch](), prefix
    for number in depth_first([asks[key].prompt for key in keys]):
        prompt, found, generates, draw = asks[keys[number]]
        cuts = [_option_cut(prompt, option) for option in found]
        # By falling cuts: what an option overwrites lies behind the cuts of those after it.
        order = sorted(range(len(found)), key=lambda i: -cuts[i])
        options = [Option(found[i].full, cuts[i], found[i].gold_start) for i in order]
        cut = min(common_prefix(held, prompt), len(prompt) - 1)
        if is_common:
            cut = min(cut, common_prefix(prefix, prompt), *cuts)
        branches.append(Branch(keys[number], prompt, cut, options, order, generates, draw))
        held = prompt[: min(cuts, default=len(prompt))]
    return Request(prefix, branches, budget, is_common)


def _option_cut(prompt: Sequence[int], option: Tokens) -> int:
    """Tokens of a prompt that stay when an option is read: all, unless tokens merge across the seam."""
    shared = common_prefix(prompt, option.full)
    if shared == len(prompt) <= option.gold_start:
        return shared
    return min(shared, option.gold_start - 1)


def depth_first(sequences: Sequence[Sequence[int]]) -> list[int]:
    """Numbers of sequences in the order of a depth-first walk of their trie, the deepest subtree first.

    Every such walk reads each edge of the trie once; in this one, what is read ends earlier and earlier.
    """
    order = sorted(range(len(sequences)), key=lambda i: list(sequences[i]))
    shared = [common_prefix(sequences[a], sequences[b]) for a, b in itertools.pairwise(order)]

    def walk(first: int, last: int) -> list[int]:
        """Numbers order[first:last], which lie below one node."""
        if last - first == 1:
            return [order[first]]
        depth = min(shared[first : last - 1])
        borders = [first, *(i + 1 for i in range(first, last - 1) if shared[i] == depth), last]
        parts = [walk(a, b) for a, b in itertools.pairwise(borders)]
        parts.sort(key=lambda part: -max(len(sequences[i]) for i in part))
        return [number for part in parts for number in part]

    return walk(0, len(order)) if order else []


def choose_shapes(
    shapes: Mapping[Shape, int], at_most: int, *, spared: float = 0.2, positions: int = 0
) -> list[Shape]:
    """At most so many shapes that hold all requests with little padding, the one with least to read first.

    Every shape is compiled for every model, so one more has to be worth it.

    Args:
      shapes: The smallest shape of each request, with the number of requests.
      at_most: How many shapes.
      spared: The share of the positions read that one more has to spare.
      positions: And how many positions.
    """
    groups = [sorted(shapes)]
    while len(groups) < at_most:
        parted = [_parted(group, shapes) for group in groups]
        total = sum(whole for whole, *_ in parted)
        saved, chosen, at = max(
            (of_group[0] - positions_read, i, at)
            for i, of_group in enumerate(parted)
            for at, positions_read in enumerate(of_group)
        )
        if saved < max(spared * total, positions):
            break
        group = groups.pop(chosen)
        groups += [group[:at], group[at:]]
    return sorted((_cover(group) for group in groups), key=lambda shape: shape.positions)


def smallest_holding(shapes: Sequence[Shape], request: Request) -> Shape:
    """The first of the shapes that a request fits into."""
    return next(shape for shape in shapes if _cover([shape, request.shape]) == shape)


def _cover(shapes: Sequence[Shape]) -> Shape:
    """The smallest shape that holds all; its ends fall, so that caches only ever shrink."""
    ends = [max(at) for at in itertools.zip_longest(*(shape.ends for shape in shapes), fillvalue=0)]
    falling = list(itertools.accumulate(reversed(ends), max))[::-1]
    largest = Shape(*(max(sizes) for sizes in zip(*shapes, strict=True)))
    return largest._replace(ends=tuple(falling))


def _parted(group: Sequence[Shape], counts: Mapping[Shape, int]) -> list[int]:
    """Positions read where a group is parted before each of its shapes and each part has one that holds it.

    The first is that of the whole group.
    """

    def up_to(ordered: Sequence[Shape]) -> list[int]:
        """Positions read for the first 1, 2, ... of these shapes."""
        covers = itertools.accumulate(ordered, lambda held, shape: _cover([held, shape]))
        numbers = itertools.accumulate(counts[shape] for shape in ordered)
        return [number * _cover([cover]).positions for number, cover in zip(numbers, covers, strict=True)]

    before, behind = up_to(group), up_to(group[::-1])[::-1]
    return [behind[0], *map(operator.add, before, behind[1:])]

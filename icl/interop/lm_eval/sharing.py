"""From prompts that come in any order to requests that read what they share once.

The harness hands over prompts without saying which belong together, so that is read off their tokens:
sorted, they are the leaves of a trie. Where many go on from one node (a fixed set of demonstrations), the
beginning is read once for all of them; where two to four do (the two contexts of a Winograd schema), one
follows the other in one cache. Either has to spare a fifth of what is to be read.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

from icl.evaluation.prompts import common_prefix
from icl.evaluation.requests import Ask, Key, Request, Shape, choose_shapes, depth_first, make_request
from icl.evaluation.scoring import fewest_shared

_BRANCHES = 4
"""So many prompts, at most, are read one after the other from one cache."""
_SPARED = 0.8
"""Prompts are read from what they share where that leaves so much to read, or less."""
_FEWEST_TOKENS = 16
"""A shorter beginning is not worth it."""
_SHAPES = 8
_SPARED_BY_A_SHAPE, _POSITIONS_A_SHAPE = 0.05, 2**15
"""What one more shape has to spare: compiling it for less takes longer than it saves."""
_DISTINCT = 200
"""Sizes are rounded until there are no more different shapes than this to choose from."""


def group_requests(asks: Sequence[Ask], budget: int, rows: int) -> list[Request]:
    """Requests that ask everything once; `Key("query", n)` stands for `asks[n]`.

    Args:
      asks: Prompts of one token or more.
      budget: Tokens that may be generated after a prompt.
      rows: How many requests are read together.
    """
    if not asks:
        return []
    order = sorted(range(len(asks)), key=lambda number: asks[number].prompt)
    prompts = [asks[number].prompt for number in order]
    requests = []
    for node in _groups(_trie(prompts, fewest_shared(min(rows, len(asks))), rows, budget == 0)):
        own = order[node.first : node.last]
        if node.read == "common":
            prefix = prompts[node.first][: node.depth]
            requests += [_request(prefix, [n], asks, budget, is_common=True) for n in own]
        else:
            first = own[depth_first([asks[n].prompt for n in own])[0]]
            requests.append(_request(asks[first].prompt[:-1], own, asks, budget))
    return requests


def _request(
    prefix: list[int], numbers: Sequence[int], asks: Sequence[Ask], budget: int, *, is_common: bool = False
) -> Request:
    chosen = {Key("query", number): asks[number] for number in numbers}
    return make_request(prefix or asks[numbers[0]].prompt[:1], chosen, budget, is_common=is_common)


@dataclasses.dataclass(slots=True)
class _Node:
    """The prompts `first` to `last` of a sorted list, which share their first `depth` tokens.

    `cost` is what has to be read for them in the best way found, `read`: each for itself or as the children
    say (""), from a common beginning, or one after the other from one cache.
    """

    first: int
    last: int
    depth: int
    tokens: int
    longest: int
    cost: float
    children: "list[_Node]" = dataclasses.field(default_factory=list)
    read: str = ""


def _trie(prompts: Sequence[list[int]], fewest: int, rows: int, may_branch: bool) -> _Node:
    """The root of the trie of sorted prompts; each node says how its prompts are read best."""
    borders = [common_prefix(a, b) for a, b in itertools.pairwise(prompts)]
    open_nodes: list[_Node] = []
    node = _Node(0, 0, 0, 0, 0, 0)
    for number, (prompt, border) in enumerate(zip(prompts, [*borders, -1], strict=True)):
        length = len(prompt)
        node = _Node(number, number + 1, length, length, length, length)
        while open_nodes and open_nodes[-1].depth > border:
            parent = open_nodes.pop()
            parent.children.append(node)
            node = _closed(parent, fewest, rows, may_branch)
        if open_nodes and open_nodes[-1].depth == border:
            open_nodes[-1].children.append(node)
        elif border >= 0:
            open_nodes.append(_Node(node.first, node.last, border, 0, 0, 0, [node]))
    return node


def _closed(node: _Node, fewest: int, rows: int, may_branch: bool) -> _Node:
    """The node with all its children, and the best way to read them."""
    children = node.children
    node.first, node.last = children[0].first, children[-1].last
    node.tokens = sum(child.tokens for child in children)
    node.longest = max(child.longest for child in children)
    node.cost = sum(child.cost for child in children)
    count = node.last - node.first
    ways = {}
    may_branch = may_branch and count <= _BRANCHES
    if node.depth < _FEWEST_TOKENS:
        return node
    if count >= fewest and count > 1:
        ways["common"] = node.depth * math.ceil(count / rows) + node.tokens - count * node.depth
    if may_branch:
        ways["branches"] = node.longest + count * (node.longest - node.depth)
    if ways:
        read = min(ways, key=lambda way: ways[way])
        if ways[read] <= _SPARED * node.cost:
            node.read, node.cost = read, ways[read]
    return node


def _groups(root: _Node) -> Iterator[_Node]:
    """The nodes whose prompts are read together, from left to right."""
    pending = [root]
    while pending:
        node = pending.pop()
        if node.read or not node.children:
            yield node
        else:
            pending += reversed(node.children)


def static_shapes(requests: Sequence[Request], longest: int) -> list[Shape]:
    """A few static shapes that hold all requests, of rounded sizes: other requests need no other programs.

    Args:
      requests: What is to be read.
      longest: The context; no prompt is longer.
    """
    counts = Counter(request.shape for request in requests)
    rounded: Counter[Shape] = Counter()
    for steps in (8, 4, 2, 1):
        rounded.clear()
        for shape, count in counts.items():
            rounded[_rounded(shape, steps, longest)] += count
        if len(rounded) <= _DISTINCT:
            break
    return choose_shapes(rounded, _SHAPES, spared=_SPARED_BY_A_SHAPE, positions=_POSITIONS_A_SHAPE)


def _rounded(shape: Shape, steps: int, longest: int) -> Shape:
    """A shape that holds this one, of sizes with so many steps to an octave."""

    def up(size: int, most: int) -> int:
        step = max(1, 2 ** (max(size - 1, 1).bit_length() - 1) // steps)
        return max(size, min(most, -(-size // step) * step))

    return Shape(
        prefix=up(shape.prefix, longest),
        branch=up(shape.branch, longest),
        ends=tuple(up(end, longest + 1) for end in shape.ends),
        options=up(shape.options, shape.options * 2),
        option=up(shape.option, longest - 1),
        new_tokens=shape.new_tokens,
    )

"""Which demonstrations stand before a query.

They depend on (task, seed, query) alone, or on (task, instance, seed) for a fixed set: not on the order of
queries, limits, batches or hosts. Those for K are the first K of those for K + 1.
"""

import itertools

from icl.data.keys import generator
from icl.errors import InputError
from icl.evaluation.config import Demonstrations
from icl.tasks.task import Example, Query


def draw(
    query: Query,
    *,
    count: int,
    seed: int,
    demonstrations: Demonstrations = "per_query",
) -> tuple[Example, ...]:
    """The first `count` demonstrations of a query.

    Examples that share the query's exclusion key are passed over. In a fixed set the next example of the
    set's order takes their place, so other queries keep the same set.

    Args:
      query: The query and its task instance.
      count: How many are wanted, 0 or more.
      seed: The demonstration seed.
      demonstrations: `per_query` draws anew for each query, `fixed` once for each instance.

    Raises:
      InputError: the instance has fewer examples; names the task, what it has, and `count`.
    """
    instance = query.instance
    drawn_for = query.name if demonstrations == "per_query" else instance.name
    rng = generator("demonstrations", demonstrations, instance.task, seed, drawn_for)
    key = query.example.key
    usable = (example for example in instance.demonstrations(rng) if key is None or example.key != key)
    drawn = tuple(itertools.islice(usable, count))
    if len(drawn) < count:
        raise InputError(
            f"task {instance.task!r} ({instance.name}): {len(drawn)} demonstrations beside query "
            f"{query.name!r}; expected at least {count}, the largest of EvalConfig.ks"
        )
    return drawn

"""Metrics of all records of a task under one condition, such as BLEU, that need be no mean over queries.

Each has statistics of a unit (a record, or a group of them) and makes its value of their sums, so that
leaving a cluster out is a subtraction. R units, X statistics, C clusters, S demonstration seeds, K classes.
"""

import dataclasses
import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU
from scipy import stats

from icl.errors import InputError
from icl.evaluation.metrics import LARGEST_EXPONENT, best, exact_match, without_detail, word_f1
from icl.evaluation.records import Record
from icl.evaluation.statistics import (
    LEVEL,
    Estimate,
    Scores,
    clopper_pearson,
    crossed_variance,
    estimate,
    nested_variance,
)
from icl.tasks.task import CorpusMetric, OptionRule

Floats = NDArray[np.float64]

_BLEU = BLEU(tokenize="intl", smooth_method="exp", force=True)  # force: no warning about tokenised text
_ORDERS = 4


class Units(NamedTuple):
    """The cluster of each unit, and its statistics [units, statistics]."""

    clusters: list[str]
    statistics_RX: Floats


@dataclasses.dataclass(frozen=True)
class CorpusStatistic:
    """A corpus metric: `value` makes it of sums [.., statistics] of the `statistics` of units.

    `bounded` says that it lies in 0..1, `is_mean` that it is the mean over units of the first statistic.
    """

    statistics: Callable[[Sequence[Record]], Units]
    value: Callable[[Floats], Floats]
    bounded: bool = True
    is_mean: bool = False


class CorpusEstimate(NamedTuple):
    """A corpus metric with its interval, and its value under each demonstration seed."""

    estimate: Estimate
    seed_values: Mapping[int, float]


def corpus_estimates(
    metrics: Sequence[CorpusMetric], records: Sequence[Record], resamples: int = 2000, crossed: bool = False
) -> dict[CorpusMetric, CorpusEstimate]:
    """Corpus metrics of one task under one condition: the mean over seeds, with its 95 % interval.

    A seed's value is that of its records, the mean over orders of the demonstrations where it has several.
    Metrics that are means are estimated as all means are (`estimate`); the others by a jackknife over
    clusters of the mean over seeds, Student's t. `crossed` says that each seed's demonstrations serve all
    clusters. No records, no metrics.
    """
    if not records:
        return {}
    draws: dict[tuple[int, int], list[Record]] = defaultdict(list)
    for record in records:
        draws[record.seed, record.order].append(record)
    found = {}
    for metric in metrics:
        statistic = CORPUS_METRICS[metric]
        units = {draw: statistic.statistics(draws[draw]) for draw in sorted(draws)}
        seed_values = _by_seed({draw: _total(statistic, of) for draw, of in units.items()})
        part = (
            _mean(units, resamples, crossed) if statistic.is_mean else _jackknife(statistic, units, crossed)
        )
        found[metric] = CorpusEstimate(part, {seed: float(value) for seed, value in seed_values.items()})
    return found


def by_rule(record: Record, rule: OptionRule) -> Record:
    """The record as if its answer were the best option by the rule."""
    option = record.options[best(record.option_scores()[rule])]
    right = exact_match(option, (record.gold, *record.aliases))
    scoring = f"options:{rule}"
    return dataclasses.replace(
        record, prediction=option, exact_match=right, scoring=scoring, generated=None, generated_match=None
    )


def as_generated(record: Record) -> Record:
    """The record as if its answer were the text generated beside the choice among options.

    Raises:
      InputError: nothing was generated.
    """
    if record.generated is None or record.generated_match is None:
        raise InputError(f"{_where(record)}: no generated answer; expected one beside the options")
    return dataclasses.replace(
        record,
        prediction=record.generated,
        exact_match=record.generated_match,
        scoring=record.generated_scoring,
    )


def _where(record: Record) -> str:
    return f"task {record.task!r}, query {record.query!r}"


def _total(statistic: CorpusStatistic, units: Units) -> Floats:
    return statistic.value(units.statistics_RX.sum(axis=0))


def _by_seed(values: Mapping[tuple[int, int], Floats]) -> dict[int, Floats]:
    """The mean over orders of the values of each seed."""
    seeds: dict[int, list[Floats]] = defaultdict(list)
    for (seed, _), value in values.items():
        seeds[seed].append(value)
    return {seed: np.mean(of, axis=0) for seed, of in seeds.items()}


def _mean(units: Mapping[tuple[int, int], Units], resamples: int, crossed: bool) -> Estimate:
    """The interval of a metric that is a mean over units."""
    numbers = _numbered(units)
    scores = Scores(
        np.concatenate([of.statistics_RX[:, 0] for of in units.values()]),
        np.array([numbers[name] for of in units.values() for name in of.clusters]),
        np.concatenate([np.full(len(of.clusters), seed) for (seed, _), of in units.items()]),
        crossed=crossed,
    )
    return estimate(scores, resamples)


def _numbered(units: Mapping[tuple[int, int], Units]) -> dict[str, int]:
    names = dict.fromkeys(name for of in units.values() for name in of.clusters)
    return {name: number for number, name in enumerate(names)}


def _jackknife(statistic: CorpusStatistic, units: Mapping[tuple[int, int], Units], crossed: bool) -> Estimate:
    """The interval of a metric that is no mean: leaves one cluster at a time out of the mean over seeds.

    The variance is that of the mean of pseudo-values, clusters x value - (clusters - 1) x value without one
    (Tukey 1958), a cell for each cluster and seed; with crossed seeds that of two crossed random effects.
    """
    numbers = _numbered(units)
    clusters = len(numbers)
    values_S = np.array(list(_by_seed({draw: _total(statistic, of) for draw, of in units.items()}).values()))
    trials = sum(len(of.clusters) for of in units.values())
    part = Estimate(float(values_S.mean()), None, None, "none", 0.0, 0.0, clusters, trials)
    shown = [len(set(of.clusters)) for of in units.values()]
    if min(shown) < 2:
        return part
    without = _by_seed({draw: _without_each(statistic, of, numbers) for draw, of in units.items()})
    pseudo_CS = clusters * values_S - (clusters - 1) * np.array(list(without.values())).T
    crossed = crossed and min(shown) == clusters
    variance, df = crossed_variance(pseudo_CS) if crossed else nested_variance(pseudo_CS)
    return _interval(dataclasses.replace(part, variance=variance, df=df), statistic.bounded)


def _without_each(statistic: CorpusStatistic, units: Units, numbers: Mapping[str, int]) -> Floats:
    """Values [clusters] when each cluster in turn is left out."""
    sums_CX = np.zeros((len(numbers), units.statistics_RX.shape[1]))
    np.add.at(sums_CX, [numbers[name] for name in units.clusters], units.statistics_RX)
    return statistic.value(units.statistics_RX.sum(axis=0) - sums_CX)


def _interval(part: Estimate, bounded: bool) -> Estimate:
    """Student's t, within 0..1 or, for what has no upper bound, on the scale of its logarithm.

    At 0 or 1 no cluster may show any spread; then each counts once, as a success or a failure.
    """
    half = float(stats.t.ppf((1 + LEVEL) / 2, part.df)) * part.variance**0.5
    if not bounded:
        factor = float(np.exp(min(half / part.value, LARGEST_EXPONENT)))
        low, high = part.value / factor, part.value * factor
    elif part.variance == 0 and part.value in (0, 1):
        low, high = clopper_pearson(part.value * part.clusters, part.clusters)
        return dataclasses.replace(part, low=low, high=high, method="clopper_pearson")
    else:
        low, high = max(part.value - half, 0.0), min(part.value + half, 1.0)
    return dataclasses.replace(part, low=low, high=high, method="jackknife_t")


def _ratio(above: Floats, below: Floats) -> Floats:
    """The quotient, 0 where there is nothing to divide by."""
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=np.asarray(below) != 0)


def _mean_value(sums_X: Floats) -> Floats:
    return _ratio(sums_X[..., 0], sums_X[..., 1])


def _records_mean(score: Callable[[Record], float], records: Sequence[Record]) -> Units:
    return Units([record.cluster for record in records], np.array([[score(each), 1.0] for each in records]))


def _bleu_statistics(records: Sequence[Record]) -> Units:
    """Lengths of answer and gold, and for n-grams of each order those that match and all, by sacrebleu."""
    rows = []
    for record in records:
        said = record.prediction if record.generated is None else record.generated
        score = _BLEU.corpus_score([said.strip()], [[record.gold.strip()]])
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return Units([record.cluster for record in records], np.array(rows, np.float64))


def _bleu_value(sums_X: Floats) -> Floats:
    return np.apply_along_axis(_bleu, -1, sums_X)


def _bleu(sums_X: Floats) -> float:
    said, right, *ngrams = (round(each) for each in sums_X.tolist())
    score = BLEU.compute_bleu(ngrams[:_ORDERS], ngrams[_ORDERS:], said, right, smooth_method="exp")
    return round(score.score / 100, 12)  # of equal texts 1 and no more


def _confusion_statistics(records: Sequence[Record]) -> Units:
    """For each class (the options, or else the golds) whether the record is a hit, a false alarm, a miss.

    A generated answer that is no class is a miss of the right one only.
    """
    golds = [record.gold.strip() for record in records]
    options = (option.strip() for record in records for option in record.options)
    classes = sorted({*golds, *options})
    found_RK3 = np.zeros((len(records), len(classes), 3))
    for row_K3, record, gold in zip(found_RK3, records, golds, strict=True):
        said = record.prediction.strip()
        if said == gold:
            row_K3[classes.index(gold), 0] = 1
        else:
            row_K3[classes.index(gold), 2] = 1
            if said in classes:
                row_K3[classes.index(said), 1] = 1
    return Units([record.cluster for record in records], found_RK3.reshape(len(records), -1))


def _macro_f1_value(sums_X: Floats) -> Floats:
    """Mean F1 of the classes that are right or said at least once, as scikit-learn takes them."""
    sums_K3 = sums_X.reshape(*sums_X.shape[:-1], -1, 3)
    occurs_K = sums_K3.sum(axis=-1) > 0
    f1_K = _ratio(2 * sums_K3[..., 0], 2 * sums_K3[..., 0] + sums_K3[..., 1] + sums_K3[..., 2])
    return _ratio(f1_K.sum(axis=-1), occurs_K.sum(axis=-1).astype(np.float64))


def _f1a_statistics(records: Sequence[Record]) -> Units:
    """Whether an answer option is said and true, said to be true, and true."""
    rows = []
    for record in records:
        said, right = _affirms(record.prediction), _affirms(record.gold)
        if right is None:
            raise InputError(
                f"{_where(record)}: f1a of the answer {record.gold!r}; expected one that begins with true or "
                "false, or yes or no"
            )
        rows.append([bool(said and right), bool(said), right])
    return Units([record.cluster for record in records], np.array(rows, np.float64))


def _affirms(answer: str) -> bool | None:
    """Whether an answer such as "[True] Paris" begins with a yes; None where it begins with neither."""
    first = re.search(r"\w+", answer)
    return {"true": True, "yes": True, "false": False, "no": False}.get(first[0].lower() if first else "")


def _f1a_value(sums_X: Floats) -> Floats:
    return _ratio(2 * sums_X[..., 0], sums_X[..., 1] + sums_X[..., 2])


def _group_statistics(records: Sequence[Record]) -> Units:
    """Whether all records of a group are right; of a group cut short by a limit, those that are there."""
    clusters: dict[str, str] = {}
    right: dict[str, float] = {}
    for record in records:
        if not record.group:
            raise InputError(
                f"{_where(record)}: group_accuracy of an example without `group`; expected the name of what "
                "is judged together"
            )
        clusters.setdefault(record.group, record.cluster)
        right[record.group] = min(right.get(record.group, 1.0), float(record.exact_match == 1))
    return Units(list(clusters.values()), np.array([[each, 1.0] for each in right.values()]))


def _entity_match(record: Record) -> float:
    said, *golds = _entities(record)
    return exact_match(said, golds, "squad")


def _entity_f1(record: Record) -> float:
    said, *golds = _entities(record)
    return word_f1(said, golds, "squad")


def _entities(record: Record) -> Iterable[str]:
    """What the answer and the right ones put into ReCoRD's sentence, whose ends all options share."""
    before, after = _shared_ends(record.options)
    for text in (record.prediction, record.gold, *record.aliases):
        yield text.strip().removeprefix(before).removesuffix(after)


@functools.lru_cache(maxsize=1 << 16)
def _shared_ends(options: Sequence[str]) -> tuple[str, str]:
    """The whole words that all options begin with, and end with, such that each has something between."""
    texts = [re.findall(r"\w+|\W", option.strip()) for option in options]
    if len(texts) < 2:
        return "", ""
    before = _shared(texts)
    after = _shared([text[len(before) :][::-1] for text in texts])[::-1]
    return "".join(before), "".join(after)


def _shared(texts: Sequence[Sequence[str]]) -> list[str]:
    """The longest beginning of all texts that leaves a word of each."""
    shared: list[str] = []
    for pieces in zip(*(text[:-1] for text in texts), strict=False):
        if len(set(pieces)) > 1:
            break
        shared.append(pieces[0])
    while shared and not all(without_detail("".join(text[len(shared) :])) for text in texts):
        shared.pop()
    return shared


def _perplexity_statistics(records: Sequence[Record]) -> Units:
    """Negative log-likelihood in nats of the whole gold answer, without its delimiter."""
    return _records_mean(lambda record: -record.answer_log_likelihood, records)


def _perplexity_value(sums_X: Floats) -> Floats:
    """The exponential of the mean over queries: per answer, in LAMBADA a word of however many tokens."""
    return np.exp(np.minimum(_mean_value(sums_X), LARGEST_EXPONENT))


CORPUS_METRICS: Mapping[CorpusMetric, CorpusStatistic] = {
    "bleu": CorpusStatistic(_bleu_statistics, _bleu_value),
    "macro_f1": CorpusStatistic(_confusion_statistics, _macro_f1_value),
    "f1a": CorpusStatistic(_f1a_statistics, _f1a_value),
    "group_accuracy": CorpusStatistic(_group_statistics, _mean_value, is_mean=True),
    "record_em": CorpusStatistic(functools.partial(_records_mean, _entity_match), _mean_value, is_mean=True),
    "record_f1": CorpusStatistic(functools.partial(_records_mean, _entity_f1), _mean_value, is_mean=True),
    "perplexity": CorpusStatistic(_perplexity_statistics, _perplexity_value, bounded=False),
}
"""How each corpus metric is computed.

"bleu" is sacrebleu's over 100, `BLEU+case.mixed+numrefs.1+smooth.exp+tok.intl` as the GPT-3 paper has it.
"macro_f1" is the mean over classes of F1 (CB). "f1a" is the F1 of "true" over all answer options,
"group_accuracy" the share of questions all of whose options are judged rightly (MultiRC). "record_em" and
"record_f1" compare entities with the best of the right ones (ReCoRD). "perplexity" is per gold answer,
whatever tokens it has.
"""

"""Corpus metrics against references and cases worked by hand, and their intervals against recomputation."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from icl.errors import InputError
from icl.evaluation.corpus_metrics import CORPUS_METRICS, as_generated, by_rule, corpus_estimates
from icl.evaluation.records import Record
from icl.evaluation.results import record_scores
from icl.evaluation.statistics import Scores, estimate, jackknife
from icl.tasks.task import CorpusMetric

COMMON: dict[str, Any] = {
    "checkpoint": "large",
    "step": 1,
    "task": "t",
    "split": "held_out",
    "instance": "i",
    "k": 4,
    "k_effective": 4,
    "instruction": True,
    "condition": "gold",
    "demonstrations": "per_query",
    "template": "default",
    "prompt_sha256": "0",
    "prompt_tokens": 3,
    "lost": 0,
    "input": "x",
    "gold_tokens": 2,
    "token_accuracy": 0.5,
    "log_likelihood": -1.0,
    "answer_log_likelihood": -1.0,
    "edit_distance": 1.0,
    "query_seen": False,
    "scoring": "greedy",
}
NUMBERS = itertools.count()


def answer(prediction: str, gold: str = "y", cluster: str = "", **changes: Any) -> Record:
    """A record of a query of its own, in a cluster of its own unless one is named."""
    query = changes.pop("query", f"q{next(NUMBERS)}")
    fields: dict[str, Any] = COMMON | {"seed": 0, "query": query} | changes
    right = fields.pop("exact_match", float(prediction == gold))
    return Record(prediction=prediction, gold=gold, cluster=cluster or query, exact_match=right, **fields)


def value(metric: CorpusMetric, records: Sequence[Record]) -> float:
    """The metric as the sums of its statistics give it."""
    statistic = CORPUS_METRICS[metric]
    return float(statistic.value(statistic.statistics(records).statistics_RX.sum(axis=0)))


SENTENCES = [
    ("The cat sat on the mat, didn't it?", "The cat sat on the mat, did it not?"),
    ('He said: "3.5 % of 1,000 are €35."', 'He said "3.5 % of 1,000 is €35".'),
    ("", "Nothing was said about that."),
    (" Guten Tag ", "Guten Tag"),
    ("a b c d e", "e d c b a"),
    ("\u201eSo ist das\u201c, sagte sie am 3. Mai.", "\u201eDas ist so\u201c, sagte sie am 3. Mai."),
]


def official_bleu(records: Sequence[Record]) -> float:
    said, right = [r.prediction.strip() for r in records], [r.gold.strip() for r in records]
    return sacrebleu.corpus_bleu(said, [right], tokenize="intl", smooth_method="exp").score / 100


def test_bleu_is_sacrebleus_over_the_whole_corpus() -> None:
    records = [answer(said, f" {right}") for said, right in SENTENCES]
    assert 0.1 < official_bleu(records) < 0.9
    assert value("bleu", records) == pytest.approx(official_bleu(records), abs=1e-10)


@given(st.lists(st.tuples(*[st.lists(st.sampled_from("ab.,5"), max_size=7).map(" ".join)] * 2), min_size=1))
@settings(deadline=None, max_examples=50)
def test_bleu_is_sacrebleus_for_any_texts(pairs: list[tuple[str, str]]) -> None:
    records = [answer(said, right) for said, right in pairs]
    assert value("bleu", records) == pytest.approx(official_bleu(records), abs=1e-10)


def test_bleu_of_equal_texts_is_one_and_no_more() -> None:
    assert value("bleu", [answer("one two three four five", " one two three four five")] * 3) == 1


def test_bleu_reads_the_text_generated_beside_options() -> None:
    text = "one two three four"
    assert value("bleu", [answer("other", text, generated=text)]) == 1


CLASSES = ("true", "false", "neither")


def test_macro_f1_is_the_mean_over_classes_worked_by_hand() -> None:
    said = ["true", "true", "false", "false", "true", "false"]
    right = ["true", "true", "true", "false", "false", "neither"]
    records = [answer(s, r, options=CLASSES) for s, r in zip(said, right, strict=True)]
    # true: 2 hits, 1 false alarm, 1 miss; false: 1, 2, 1; neither: only a miss
    assert value("macro_f1", records) == pytest.approx((4 / 6 + 2 / 5 + 0) / 3)


@given(st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=30))
@settings(deadline=None)
def test_macro_f1_is_that_of_precision_and_recall_over_classes_that_occur(
    pairs: list[tuple[str, str]],
) -> None:
    scores = []
    for label in {label for pair in pairs for label in pair}:
        hits = sum(said == right == label for said, right in pairs)
        precision = hits / max(sum(said == label for said, _ in pairs), 1)
        recall = hits / max(sum(right == label for _, right in pairs), 1)
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    records = [answer(said, right, options=CLASSES) for said, right in pairs]
    assert value("macro_f1", records) == pytest.approx(np.mean(scores))


def test_a_generated_answer_that_is_no_class_is_a_miss_and_no_class() -> None:
    records = [answer("true", "true", options=CLASSES), answer("perhaps", "true", options=CLASSES)]
    assert value("macro_f1", records) == pytest.approx(2 / 3)


def multirc(marks: str, group: str, cluster: str = "") -> list[Record]:
    """Answers of a question: said and true as pairs of T and F, as in "TT FT"."""
    texts = {"T": "[True] a", "F": "[False] a"}
    options = (texts["F"], texts["T"])
    return [
        answer(texts[said], texts[right], cluster or group, group=group, options=options)
        for said, right in map(tuple, marks.split())
    ]


def test_multirc_counts_answers_for_f1a_and_whole_questions_for_accuracy() -> None:
    records = multirc("TT FF TT", "1") + multirc("TT TF FT", "2") + multirc("FF FF", "3")
    assert value("f1a", records) == pytest.approx(2 * 3 / (4 + 4))
    assert value("group_accuracy", records) == pytest.approx(2 / 3)
    shuffled = [records[i] for i in np.random.default_rng(0).permutation(len(records))]
    assert value("group_accuracy", shuffled) == pytest.approx(2 / 3)


def test_f1a_is_nothing_where_nothing_true_is_said() -> None:
    assert value("f1a", multirc("FT FF", "1")) == value("f1a", multirc("FF", "1")) == 0


def test_yes_and_no_are_as_good_as_true_and_false() -> None:
    assert value("f1a", [answer("yes", "yes"), answer("Yes", "no"), answer("what?", "no")]) == 2 / 3


def test_metrics_that_cannot_be_made_of_the_records_say_what_was_expected() -> None:
    with pytest.raises(InputError, match="'q' *: f1a of the answer 'Paris'; expected one that begins with"):
        value("f1a", [answer("yes", "Paris", query="q")])
    with pytest.raises(InputError, match="without `group`"):
        value("group_accuracy", [answer("yes", "yes")])
    with pytest.raises(InputError, match="no generated answer"):
        as_generated(answer("yes", "yes"))


def test_record_compares_entities_and_not_the_sentences_they_stand_in() -> None:
    names = ("the New York Times", "York", "Mr. Obama", "Barack Obama")
    options = tuple(f"In May {name}'s lawyers said no." for name in names)
    texts = dict(zip(names, options, strict=True))
    records = [
        answer(texts["York"], texts["the New York Times"], options=options),
        answer(
            texts["Mr. Obama"], texts["York"], options=options, aliases=(texts["Barack Obama"], texts["York"])
        ),
        answer(texts["York"], texts["Mr. Obama"], options=options, aliases=(texts["York"],)),
    ]
    assert value("record_em", records) == pytest.approx(1 / 3)
    # York of New York Times (the article does not count); one name of two of the alias; right
    assert value("record_f1", records) == pytest.approx((2 / 4 + 2 / 4 + 1) / 3)


def test_record_leaves_a_word_of_every_entity() -> None:
    options = ("to York at last", "to York City at last")
    assert value("record_f1", [answer(options[0], options[1], options=options)]) == pytest.approx(2 / 3)
    assert value("record_f1", [answer("the York", "York City", options=("York", "York City"))]) == 2 / 3
    assert value("record_em", [answer("no entity", options[1], options=options)]) == 0


def test_perplexity_is_per_answer_and_not_per_token() -> None:
    records = [
        answer("", answer_log_likelihood=3 * np.log(1 / 2)),
        answer("", answer_log_likelihood=np.log(1 / 8)),
    ]
    assert value("perplexity", records) == pytest.approx(8)


def test_an_answer_can_be_read_by_another_rule_or_as_generated() -> None:
    record = answer(
        "long one",
        "no",
        options=("long one", "no"),
        option_tokens=(4, 1),
        option_log_likelihoods=(-4.0, -3.0),
        scoring="options:token",
        gold_option=1,
        generated="maybe",
        generated_match=0.0,
        generated_scoring="beam:4:gnmt:0.6",
    )
    by_sum = by_rule(record, "sum")
    assert (by_sum.prediction, by_sum.exact_match, by_sum.scoring) == ("no", 1, "options:sum")
    assert by_rule(record, "token").prediction == "long one" and by_rule(record, "token").exact_match == 0
    assert by_rule(dataclasses.replace(record, aliases=("long one",)), "token").exact_match == 1
    written = as_generated(record)
    assert (written.prediction, written.exact_match, written.scoring) == ("maybe", 0, "beam:4:gnmt:0.6")


def corpus(seeds: int = 3, clusters: int = 12, effect: float = 0.0) -> list[Record]:
    """Answers of clusters of several sizes under several seeds, of use to every metric."""
    rng = np.random.default_rng(seeds)
    texts = ("[False] one two three four", "[True] one two four three")
    records = []
    for cluster, seed in itertools.product(range(clusters), range(seeds)):
        for i in range(1 + cluster % 3):
            gold, said = (int(rng.random() < rate) for rate in (0.4, 0.5))
            said = gold if rng.random() < 0.3 + 0.04 * cluster + effect * seed else said
            records.append(
                answer(
                    texts[said],
                    texts[gold],
                    f"c{cluster}",
                    seed=seed,
                    query=f"{cluster}.{i}",
                    group=f"g{cluster}",
                    options=texts,
                    answer_log_likelihood=-float(rng.exponential(1 + 0.1 * cluster)),
                )
            )
    return [records[i] for i in rng.permutation(len(records))]


SUMS: list[CorpusMetric] = ["bleu", "macro_f1", "f1a", "perplexity"]


def mean_over_seeds(metric: CorpusMetric, records: Sequence[Record]) -> float:
    seeds = {record.seed for record in records}
    return float(np.mean([value(metric, [r for r in records if r.seed == seed]) for seed in seeds]))


@pytest.mark.parametrize("metric", SUMS)
def test_leaving_out_by_subtraction_is_leaving_out_and_computing_anew(metric: CorpusMetric) -> None:
    records = corpus()
    names = sorted({record.cluster for record in records})

    def anew(stay_C: NDArray[np.bool_]) -> float:
        stay = {name for name, stays in zip(names, stay_C, strict=True) if stays}
        return mean_over_seeds(metric, [record for record in records if record.cluster in stay])

    expected = jackknife(anew, len(names))
    found, seed_values = corpus_estimates([metric], records)[metric]
    assert found.value == pytest.approx(expected.value) and found.variance > 0
    assert found.variance == pytest.approx(expected.variance)
    assert (found.df, found.clusters, found.trials) == (11, 12, len(records))
    assert seed_values == {
        seed: pytest.approx(value(metric, [r for r in records if r.seed == seed])) for seed in range(3)
    }
    if metric != "perplexity":
        assert (found.low, found.high) == pytest.approx((max(expected.low, 0), min(expected.high, 1)))  # type: ignore[type-var]


def test_perplexity_has_its_interval_on_a_logarithmic_scale() -> None:
    records = [answer("", answer_log_likelihood=-nats) for nats in (0.1, 0.3, 8.0)]
    found, _ = corpus_estimates(["perplexity"], records)["perplexity"]
    assert found.low is not None and found.high is not None and found.low > 0
    assert found.low * found.high == pytest.approx(found.value**2)


@pytest.mark.parametrize("metric", ["group_accuracy", "record_em", "record_f1"])
@pytest.mark.parametrize("crossed", [False, True])
def test_metrics_that_are_means_have_the_interval_of_means(metric: CorpusMetric, crossed: bool) -> None:
    records = corpus()
    scores = []
    for seed in range(3):
        units = CORPUS_METRICS[metric].statistics([r for r in records if r.seed == seed])
        scores += [(s, c, seed) for s, c in zip(units.statistics_RX[:, 0], units.clusters, strict=True)]
    columns = [np.array(column) for column in zip(*scores, strict=True)]
    clusters = np.unique(columns[1], return_inverse=True)[1]
    expected = estimate(Scores(columns[0], clusters, columns[2], crossed=crossed))
    found, _ = corpus_estimates([metric], records, crossed=crossed)[metric]
    assert found.method == "clopper_pearson" and found.variance > 0
    assert dataclasses.astuple(found)[4:] == pytest.approx(dataclasses.astuple(expected)[4:])
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )


@pytest.mark.parametrize("crossed", [False, True])
def test_of_a_nearly_linear_metric_the_variance_is_that_of_a_mean(crossed: bool) -> None:
    rng = np.random.default_rng(3)
    nats_CS = 1e-4 * (rng.exponential(size=(15, 4)) + rng.exponential(size=(15, 1)) + 3 * rng.random((1, 4)))
    records = [
        answer("", cluster=f"c{c}", seed=s, answer_log_likelihood=-nats_CS[c, s])
        for c, s in np.ndindex(15, 4)
    ]
    places = np.array(list(np.ndindex(15, 4)))
    mean = estimate(Scores(nats_CS.ravel(), places[:, 0], places[:, 1], bounded=False, crossed=crossed))
    found, _ = corpus_estimates(["perplexity"], records, crossed=crossed)["perplexity"]
    assert found.variance == pytest.approx(mean.variance, rel=1e-3)
    assert found.df == pytest.approx(mean.df, rel=1e-3)


def test_seeds_that_serve_all_clusters_widen_the_interval_by_their_own_spread() -> None:
    records = corpus(effect=0.2)
    nested, _ = corpus_estimates(["f1a"], records)["f1a"]
    crossed, _ = corpus_estimates(["f1a"], records, crossed=True)["f1a"]
    assert crossed.value == nested.value and crossed.variance > nested.variance
    cut = [r for r in records if (r.seed, r.cluster) != (0, "c3")]  # one seed lacks a cluster: nested
    assert corpus_estimates(["f1a"], cut, crossed=True) == corpus_estimates(["f1a"], cut)


def test_orders_of_the_same_demonstrations_are_averaged_within_their_seed() -> None:
    first = multirc("TT FF", "1") + multirc("FT FF", "2")
    second = [dataclasses.replace(r, order=1) for r in multirc("TT TF", "1") + multirc("TT FF", "2")]
    other = [dataclasses.replace(r, seed=1) for r in multirc("TT FF", "1") + multirc("TT FF", "2")]
    found = corpus_estimates(["f1a", "group_accuracy"], first + second + other)
    mean = (value("f1a", first) + value("f1a", second)) / 2
    assert found["f1a"].seed_values == pytest.approx({0: mean, 1: 1})
    assert found["f1a"].estimate.value == pytest.approx((mean + 1) / 2)
    assert found["group_accuracy"].seed_values == pytest.approx({0: 1 / 2, 1: 1})


def test_a_perfect_score_of_few_clusters_is_no_certainty() -> None:
    records = multirc("TT FF", "1") + multirc("TT", "2") + multirc("TT", "3")
    found = corpus_estimates(["f1a", "group_accuracy"], records)
    for estimated, _ in found.values():
        assert estimated.value == estimated.high == 1
        assert estimated.low == pytest.approx(0.025 ** (1 / 3))


def test_one_cluster_has_a_value_and_no_interval() -> None:
    records = multirc("TT FF TF", "1")
    found, _ = corpus_estimates(["f1a"], records)["f1a"]
    assert found.value == pytest.approx(2 / 3)
    assert found.low is None and found.high is None and found.method == "none"
    assert corpus_estimates(["f1a"], []) == {}


def covered(metric: CorpusMetric, draws: Sequence[Sequence[Record]], truth: float) -> float:
    """The share of draws whose interval holds the truth."""
    found = [corpus_estimates([metric], records)[metric].estimate for records in draws]
    return float(
        np.mean([e.low is not None and e.high is not None and e.low <= truth <= e.high for e in found])
    )


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)

    def words() -> list[Record]:
        """Words of mean 2 nats, skewed as those of language models are."""
        return [answer("", answer_log_likelihood=-float(each)) for each in rng.gamma(1.0, 2.0, 60)]

    def questions() -> list[Record]:
        """Three answers each, 0.4 of them true, judged rightly at a question's own rate, 0.7 on average."""
        records = []
        for group in range(30):
            rate = rng.beta(3.5, 1.5)
            marks = "".join(
                (right if rng.random() < rate else {"T": "F", "F": "T"}[right]) + right + " "
                for right in rng.choice(["T", "F"], 3, p=[0.4, 0.6])
            )
            records += multirc(marks, str(group))
        return records

    f1a = 2 * 0.4 * 0.7 / (0.4 * 0.7 + 0.6 * 0.3 + 0.4)
    assert 0.9 < covered("perplexity", [words() for _ in range(400)], np.exp(2)) < 0.98
    assert 0.9 < covered("f1a", [questions() for _ in range(400)], f1a) < 0.98


def test_every_rule_whose_likelihoods_a_record_holds_is_scored() -> None:
    record = answer(
        "no",
        "no",
        options=("yes", "no"),
        option_tokens=(1, 1),
        option_log_likelihoods=(-1.0, -2.0),
        unconditional_log_likelihoods=(-1.0, -4.0),
        calibration_log_likelihoods=(-3.0, -5.0),
        channel_log_likelihoods=(-9.0, -8.0),
        gold_option=1,
        scoring="options:channel",
    )
    found = {rule: value for (rule, metric), value in record_scores(record).items() if metric == "accuracy"}
    assert found == {
        "options:sum": 0, "options:token": 0, "options:char": 0, "options:byte": 0,
        "options:unconditional": 1, "options:calibrated": 1, "options:channel": 1,
    }  # fmt: skip

"""The report needs nothing else, says what the numbers say, and escapes what others wrote."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import pytest

from icl.evaluation.config import EvalConfig
from icl.evaluation.findings import findings
from icl.evaluation.records import Record, Result
from icl.evaluation.report import write_report
from icl.evaluation.results import MEAN
from icl.evaluation.table import k_curve_table
from tests.training.small import one_device_setup

EVIL = "<script>alert('$x')</script>"
CONFIG = EvalConfig(ks=(0, 4), seeds=2)


def result(checkpoint: str, task: str, k: int, value: float, **changes: object) -> Result:
    row = Result(
        checkpoint=checkpoint,
        rung="",
        step=1,
        params=1000 if checkpoint == "small" else 2000,
        train_seed=0,
        task=task,
        split="held_out",
        metric="exact_match",
        k=k,
        k_effective=k,
        instruction=False,
        scoring="greedy",
        condition="gold",
        demonstrations="per_query",
        template="default",
        slice="all",
        value=value,
        ci_low=max(value - 0.05, 0),
        ci_high=min(value + 0.05, 1),
        interval_method="clopper_pearson",
        n=64,
        clusters=64,
        seeds=2,
        seed_values=(value, value),
    )
    return dataclasses.replace(row, **changes)  # type: ignore[arg-type]


def chance(task: str, k: int) -> Result:
    return result(
        "baseline", task, k, 0.1, params=None, scoring="baseline:chance", ci_low=None, ci_high=None, n=0
    )


def results(task: str = "cipher", last: float = 0.9) -> list[Result]:
    rows = [
        result(name, t, k, v)
        for t in (task, MEAN)
        for name in ("small", "large")
        for k, v in ((0, 0.1), (4, last))
    ]
    return rows + [chance(t, k) for t in (task, MEAN) for k in (0, 4)]


@dataclasses.dataclass(frozen=True)
class Gap:
    """A difference, as comparisons give it."""

    left: str = "large"
    right: str = "small"
    checkpoint: str | None = None
    task: str = "cipher"
    metric: str = "exact_match"
    scoring: str = "greedy"
    k: int = 4
    instruction: bool | None = False
    template: str = "default"
    condition: str | None = "gold"
    value: float = 0.2
    ci_low: float | None = 0.1
    ci_high: float | None = 0.3
    p: float = 0.001
    p_holm: float = 0.004
    family: str = "checkpoints"
    marked: bool = True
    n: int = 64
    clusters: int = 64
    dropped: int = 0


def difference(**changes: object) -> Gap:
    return dataclasses.replace(Gap(), **changes)  # type: ignore[arg-type]


def record(task: str, prompt: str, prediction: str) -> Record:
    said = result("large", task, 4, float(prediction == "y"))
    shared = {field.name for field in dataclasses.fields(Record)} & set(dataclasses.asdict(said))
    return Record(
        **{name: getattr(said, name) for name in shared},
        instance="i",
        query="q",
        cluster="c",
        seed=0,
        prompt_sha256="0",
        prompt_tokens=3,
        lost=0,
        input="x",
        gold="y",
        gold_tokens=2,
        prediction=prediction,
        exact_match=said.value,
        token_accuracy=0.5,
        log_likelihood=-1.0,
        answer_log_likelihood=-1.0,
        edit_distance=1.0,
        query_seen=False,
        prompt=prompt,
    )


class _Page(HTMLParser):
    """Collects tags and what they point to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and data.strip():
            self.scripts.append(data)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of a task, a checkpoint, a prompt and an answer that try to be HTML."""
    folder = tmp_path_factory.mktemp("report")
    rows = [
        dataclasses.replace(row, checkpoint=row.checkpoint.replace("large", EVIL)) for row in results(EVIL)
    ]
    description = dataclasses.replace(one_device_setup().description(), git=EVIL, rung=EVIL)
    samples = [record(EVIL, EVIL, EVIL), dataclasses.replace(record(EVIL, EVIL, "y"), k=0, k_effective=0)]
    samples[0] = dataclasses.replace(
        samples[0],
        options=(EVIL, "y"),
        gold_option=1,
        option_tokens=(1, 1),
        option_log_likelihoods=(-1.0, -2.0),
        scoring="options:token",
        generated=EVIL,
        generated_match=0.0,
        pieces=(EVIL, "\n"),
        piece_log_likelihoods=(-0.1, -9.0),
        condition=cast(Any, EVIL),
        template=EVIL,
        query=EVIL,
        prompt_sha256=EVIL,
    )
    write_report(
        folder / "report.html",
        rows + [dataclasses.replace(row, condition=EVIL, template=EVIL) for row in rows],
        samples,
        {EVIL: description},
        CONFIG,
        differences=[difference(left=EVIL, task=EVIL, family=EVIL, template=EVIL, condition=EVIL)],
        record_files={(EVIL, EVIL): ["javascript:alert(1)'", "records/a b.jsonl.gz"]},
    )
    assert (folder / "k_curve.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / "k_curve_tasks.png").exists()
    return (folder / "report.html").read_text()


def test_what_models_and_data_say_is_escaped(html: str) -> None:
    page = _Page()
    page.feed(html)
    assert page.tags.count("script") == 1 and len(page.scripts) == 1
    assert "alert" not in page.scripts[0]
    assert html.count("&lt;script&gt;") >= 20


def test_the_report_asks_for_nothing_from_outside(html: str) -> None:
    page = _Page()
    page.feed(html)
    assert all(link.startswith(("#", "./")) for link in page.links)
    assert not re.search(r"@import|fetch\(|XMLHttpRequest|url\((?!#|['\"]?data:)", html)


def test_every_task_links_to_the_files_of_its_records(html: str) -> None:
    page = _Page()
    page.feed(html)
    assert "./records/a%20b.jsonl.gz" in page.links
    assert "./javascript%3Aalert%281%29%27" in page.links


def test_the_same_results_give_the_same_report(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        description = {"large": one_device_setup().description()}
        write_report(
            tmp_path / name / "report.html", results(), [record("cipher", "p", "y")], description, CONFIG
        )
        made.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert made[0] == made[1]


def test_answers_are_marked_right_or_wrong_in_words(html: str) -> None:
    assert (
        "<mark class='wrong'>&lt;script&gt;" in html
        and "</mark> wrong (the answer is <mark class='gold'>y</mark>)" in html
    )
    assert "<mark class='right'>y</mark> right" in html


@pytest.mark.parametrize(
    ("last", "kind"),
    [(0.95, "Learnt in context"), (0.5, "Partly learnt in context"), (0.12, "Not learnt")],
)
def test_findings_follow_the_numbers(last: float, kind: str) -> None:
    sentences = findings(results(last=last))
    assert any(sentence.startswith(kind) and "cipher (" in sentence for sentence in sentences)
    assert f"{100 * last:.1f}" in sentences[0] and "chance is 10.0 %" in sentences[0]


def test_a_task_answered_by_lookup_is_not_called_learnt() -> None:
    slices = [
        result("large", "cipher", 4, 0.98, slice="query_seen"),
        result("large", "cipher", 4, 0.3, slice="query_unseen"),
    ]
    sentences = findings([*results(), *slices])
    (found,) = (sentence for sentence in sentences if "cipher" in sentence)
    assert found.startswith("Answered by finding the query")
    assert "98.0" in found and "30.0" in found


@pytest.mark.parametrize(("best", "kind"), [(0.85, "Answered by finding"), (0.5, "Learnt in context")])
def test_a_rule_is_learnt_only_beyond_what_exclusion_gives(best: float, kind: str) -> None:
    slices = [
        result("large", "cipher", 4, 0.98, slice="query_seen"),
        result("large", "cipher", 4, 0.88, slice="query_unseen"),
        result("baseline", "cipher", 4, best, scoring="baseline:ceiling", slice="query_unseen"),
        result("baseline", "cipher", 4, 1.0, scoring="baseline:ceiling"),
    ]
    (found,) = (s for s in findings([*results(), *slices]) if "cipher (" in s)
    assert found.startswith(kind)


def flat(value: float) -> list[Result]:
    rows = [row for row in results() if row.checkpoint == "baseline"]
    return rows + [result("large", t, k, value) for t in ("cipher", MEAN) for k in (0, 4)]


def test_a_score_that_does_not_rise_with_demonstrations_is_not_called_learnt_in_context() -> None:
    (found,) = (sentence for sentence in findings(flat(0.95)) if "cipher (" in sentence)
    assert found.startswith("Answered without need of demonstrations")


def test_a_rise_within_the_intervals_is_no_rise() -> None:
    rows = [dataclasses.replace(row, value=0.9, ci_high=0.96) if row.k == 0 else row for row in flat(0.95)]
    (found,) = (sentence for sentence in findings(rows) if "cipher (" in sentence)
    assert found.startswith("Answered without need of demonstrations")


def test_a_score_at_one_k_says_nothing_of_demonstrations() -> None:
    (found,) = (s for s in findings([row for row in flat(0.95) if row.k == 4]) if "cipher (" in s)
    assert found.startswith("Answered better than rules") and "one K" in found


def test_a_score_without_rules_beside_it_is_not_judged() -> None:
    rows = [row for row in results() if row.checkpoint != "baseline"]
    (found,) = (sentence for sentence in findings(rows) if "cipher (" in sentence)
    assert found.startswith("Scored where no rule is there")


def test_single_runs_are_named_as_single_runs() -> None:
    rows = [row for row in results() if not (row.checkpoint == "small" and row.value > 0.5)]
    rows += [result("small", t, 4, 0.3) for t in ("cipher", MEAN)]
    (found,) = (sentence for sentence in findings(rows) if "points" in sentence)
    assert "60 points above small" in found and "single training runs" in found


@pytest.mark.parametrize(("second", "said"), [(0.6, "every run"), (0.25, "their runs overlap")])
def test_claims_about_size_take_training_runs_as_units(second: float, said: str) -> None:
    rows = [
        result(name, MEAN, 4, value, params=params, train_seed=seed)
        for name, params, seed, value in (
            ("a", 10, 0, 0.2),
            ("b", 10, 1, 0.3),
            ("c", 99, 0, 0.5),
            ("d", 99, 1, second),
        )
    ]
    (found,) = (sentence for sentence in findings(rows) if "training runs of 99" in sentence)
    assert said in found and f"{100 * (0.5 + second) / 2:.1f} %" in found and "25.0 %" in found


def test_the_table_has_a_row_for_each_curve_with_its_intervals() -> None:
    lines = k_curve_table(results()).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["small", "large", "chance"]
    assert "90.0 [85–95]" in lines[3] and "1,000" in lines[2]


def test_the_table_leaves_blank_what_a_task_was_not_asked() -> None:
    rows = [row for row in results() if (row.checkpoint, row.k) != ("small", 0)]
    lines = k_curve_table(rows).splitlines()
    small, large = lines[2], lines[3]
    assert len(small) == len(large) and "[" not in small[: small.index("90.0")]


def test_a_table_with_many_k_keeps_within_a_line_and_loses_none() -> None:
    ks = range(0, 60, 2)
    text = k_curve_table([result("large", MEAN, k, 0.5) for k in ks])
    assert max(map(len, text.splitlines())) <= 110
    assert all(f"K={k}" in text.split() for k in ks) and text.count("50.0") == len(ks)


def test_tasks_without_a_common_k_have_tables_of_their_own() -> None:
    text = k_curve_table([result("large", "one", 4, 0.5), result("large", "two", 8, 0.5)])
    assert text.startswith("one\n") and "\ntwo\n" in text


def test_tasks_without_a_common_k_have_a_report_too(tmp_path: Path) -> None:
    rows = [result("large", "one", 4, 0.5), result("large", "two", 8, 0.5)]
    provenance = {"large": one_device_setup().description()}
    write_report(tmp_path / "report.html", rows, [], provenance, CONFIG)
    assert "no number of demonstrations in common" in (tmp_path / "report.html").read_text()

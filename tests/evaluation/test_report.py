"""The report needs nothing else, says what the numbers say, and escapes what others wrote."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

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
        edit_distance=1.0,
        query_seen=False,
        prompt=prompt,
    )


class _Page(HTMLParser):
    """Collects tags and what they point to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of a task, a checkpoint, a prompt and an answer that try to be HTML."""
    folder = tmp_path_factory.mktemp("report")
    rows = [
        dataclasses.replace(row, checkpoint=row.checkpoint.replace("large", EVIL)) for row in results(EVIL)
    ]
    description = dataclasses.replace(one_device_setup().description(), git=EVIL, rung=EVIL)
    samples = [record(EVIL, EVIL, EVIL), dataclasses.replace(record(EVIL, EVIL, "y"), k=0, k_effective=0)]
    write_report(folder / "report.html", rows, samples, {EVIL: description}, CONFIG)
    assert (folder / "k_curve.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / "k_curve_tasks.png").exists()
    return (folder / "report.html").read_text()


def test_what_models_and_data_say_is_escaped(html: str) -> None:
    page = _Page()
    page.feed(html)
    assert "script" not in page.tags
    assert html.count("&lt;script&gt;") >= 5


def test_the_report_asks_for_nothing_from_outside(html: str) -> None:
    page = _Page()
    page.feed(html)
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"@import|url\((?!#|['\"]?data:)", html)


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
    ("last", "kind"), [(0.95, "Learnt: cipher"), (0.5, "Partly learnt: cipher"), (0.12, "Not learnt")]
)
def test_findings_follow_the_numbers(last: float, kind: str) -> None:
    sentences = findings(results(last=last))
    assert any(sentence.startswith(kind) for sentence in sentences)
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


@pytest.mark.parametrize(("best", "kind"), [(0.85, "Answered by finding"), (0.5, "Learnt: cipher")])
def test_a_rule_is_learnt_only_beyond_what_exclusion_gives(best: float, kind: str) -> None:
    slices = [
        result("large", "cipher", 4, 0.98, slice="query_seen"),
        result("large", "cipher", 4, 0.88, slice="query_unseen"),
        result("baseline", "cipher", 4, best, scoring="baseline:ceiling", slice="query_unseen"),
        result("baseline", "cipher", 4, 1.0, scoring="baseline:ceiling"),
    ]
    (found,) = (s for s in findings([*results(), *slices]) if "cipher (" in s)
    assert found.startswith(kind)


def test_the_table_has_a_row_for_each_curve_with_its_intervals() -> None:
    lines = k_curve_table(results()).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["small", "large", "chance"]
    assert "90.0 [85–95]" in lines[3] and "1,000" in lines[2]

"""Claims about clean and dirty queries."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.data.cached_documents import corpus_pieces
from icl.data.corpus_cache import make_plan, prepare
from icl.data.ngrams import Grams
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.evaluation import contamination
from icl.evaluation.contamination import Match, Overlap, find_overlaps, ngram_length, query_texts, split_words
from icl.evaluation.contamination_results import contamination_results, contamination_table, record_texts
from icl.evaluation.records import Record, write_lines
from icl.tasks import Example
from tests.evaluation.toy import ToyTask
from tools.contamination import QUERIES, RESULTS, main

SENTENCE = "the quick brown fox jumps over the lazy dog while seven grey geese fly slowly south"
WORDS = st.sampled_from(["a", "b", "B.", "c-a", "é,", "ΣΑΣ", "_a_", "b\u2019c", "\u00a0", "!", "7"])
TEXTS = st.lists(WORDS, max_size=12).map(" ".join)


def naive(texts: Sequence[str], documents: Sequence[str], length: int) -> dict[int, tuple[int, int]]:
    """Occurrences and distinct grams by example, gram by gram."""
    words = [re.findall(r"[^\W_]+", document.lower()) for document in documents]
    found = {}
    for number, text in enumerate(texts):
        own = re.findall(r"[^\W_]+", text.lower())
        grams = {tuple(own[i : i + length]) for i in range(len(own) - length + 1)}
        seen = [tuple(each[i : i + length]) for each in words for i in range(len(each) - length + 1)]
        seen = [gram for gram in seen if gram in grams]
        if seen:
            found[number] = len(seen), len(set(seen))
    return found


@settings(max_examples=80, deadline=None)
@given(st.lists(TEXTS, max_size=4), st.lists(TEXTS, max_size=5), st.integers(1, 4), st.integers(1, 20))
def test_one_pass_finds_what_a_search_gram_by_gram_finds(
    texts: list[str], documents: list[str], length: int, batch: int
) -> None:
    tasks = {"short": dict(enumerate(texts)), "long": dict(enumerate(reversed(texts)))}
    named = {task: {str(query): text for query, text in of.items()} for task, of in tasks.items()}
    with pytest.MonkeyPatch.context() as patch:  # so small that a document spans batches
        patch.setattr(contamination, "_BATCH", batch)
        patch.setattr(contamination, "_PIECE", 3)
        overlaps = find_overlaps(named, documents, {"short": length, "long": length + 2})
    for task, words in (("short", length), ("long", length + 2)):
        found = {int(query): match[:2] for query, match in overlaps[task].dirty.items()}
        assert found == naive(list(tasks[task].values()), documents, words)
        for match in overlaps[task].dirty.values():
            holding = [doc for doc in documents if f" {match.evidence} " in f" {' '.join(split_words(doc))} "]
            assert match.documents == len(holding) > 0


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_words_are_those_of_the_training_filter(text: str) -> None:
    assert split_words(text) == re.findall(r"[^\W_]+", text.lower())
    assert split_words(text.encode("ascii", "ignore").decode()) == re.findall(
        r"[^\W_]+", text.encode("ascii", "ignore").decode().lower()
    )


def test_a_planted_example_is_found_and_the_training_filter_finds_it_too() -> None:
    document = f"Before it. {SENTENCE.upper().replace(' ', ', ')}! After it."
    overlap = find_overlaps({"t": {"q": SENTENCE, "other": "nothing " * 20}}, [document])["t"]
    assert overlap.words == 13 and list(overlap.dirty) == ["q"] and overlap.short == 0
    match = overlap.dirty["q"]
    assert (match.occurrences, match.grams) == (4, 4) and match.documents == 1
    assert match.evidence in SENTENCE and len(match.evidence.split()) == 13
    assert len(Grams([SENTENCE]).found(document)) == match.occurrences


def test_nothing_is_found_across_the_border_of_two_documents() -> None:
    words = SENTENCE.split()
    for cut in range(1, len(words)):
        halves = [" ".join(words[:cut]), " ".join(words[cut:])]
        longest = max(cut, len(words) - cut)
        overlap = find_overlaps({"t": {"q": SENTENCE}}, halves)["t"]
        assert bool(overlap.dirty) == (longest >= 13)


def test_one_word_less_than_n_is_clean() -> None:
    words = SENTENCE.split()
    assert not find_overlaps({"t": {"q": SENTENCE}}, [" ".join(words[:12]) + " x"])["t"].dirty
    assert find_overlaps({"t": {"q": SENTENCE}}, [" ".join(words[:13]) + " x"])["t"].dirty


def test_a_gram_of_many_documents_still_makes_an_example_dirty() -> None:
    match = find_overlaps({"t": {"q": SENTENCE}}, [SENTENCE] * 25)["t"].dirty["q"]
    assert match.documents == 25 and match.occurrences == 25 * 4


def test_a_document_longer_than_a_batch_is_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contamination, "_BATCH", 30)
    monkeypatch.setattr(contamination, "_PIECE", 50)
    documents = [f"{SENTENCE}. " * 9, "nothing here", SENTENCE]
    match = find_overlaps({"t": {"q": SENTENCE}}, documents)["t"].dirty["q"]
    assert match.occurrences == 10 * 4 and match.documents == 2


def test_the_rarest_gram_is_the_evidence() -> None:
    words = SENTENCE.split()
    documents = [" ".join(words[:15])] * 3 + [" ".join(words[3:])]
    match = find_overlaps({"t": {"q": SENTENCE}}, documents)["t"].dirty["q"]
    assert match == Match(10, 4, " ".join(words[3:]), 1)


def test_n_is_the_fifth_percentile_of_lengths_within_bounds() -> None:
    texts = ["w " * length for length in range(1, 101)]
    assert ngram_length(texts[4:]) == 9  # 5 to 100 words
    assert ngram_length(["a b"] * 9) == 8 and ngram_length(["a b"] * 9, synthetic=True) == 2
    assert ngram_length(["w " * 200]) == ngram_length(["w " * 200], synthetic=True) == 13
    # The paper's Table C.1 has 2 for scrambles and 7 for symbol insertion: letters that symbols divide count.
    assert ngram_length(["asinoc = casino"], synthetic=True) == 2
    assert ngram_length(["d.o m!e/s t = domest"], synthetic=True) == 7


def test_examples_shorter_than_n_are_counted_and_clean() -> None:
    overlap = find_overlaps({"t": {"q": "four words are here", "long": SENTENCE}}, ["four words are here"])[
        "t"
    ]
    assert overlap.short == 1 and not overlap.dirty and overlap.queries == ("q", "long")


def test_operations_are_found_as_the_paper_searches_for_them() -> None:
    asked = {"a": "Q: What is 98 plus 45?\n\nA: 143", "b": "12 plus 7 19", "c": "Q: What is 5 plus 5? 10"}
    taken = {"d": "Q: What is 33 minus 88?\n\nA: -55", "e": "Q: What is 3 minus 1? 2"}
    composed = {"f": "What is (9 + 8) * 2? 34"}
    documents = [
        "as 98 plus 45 is",
        "so 1 + 12+7 = 20, 33 - 88=",
        "198 plus 455, 5 + 5 or 5.5 plus 5, 3 minus 12",
    ]
    overlaps = find_overlaps({"add": asked, "take": taken, "composed": composed}, documents)
    assert overlaps["add"].sums == {"a": "98 plus 45", "b": "12 + 7 ="}
    assert overlaps["take"].sums == {"d": "33 - 88 ="}
    assert overlaps["composed"].sums is None


def test_tasks_can_be_searched_before_any_evaluation() -> None:
    task = ToyTask([Example(SENTENCE, "today"), Example("nothing " * 13, "of it")])
    overlap = find_overlaps({"toy": query_texts(task.queries("held_out"))}, [SENTENCE])["toy"]
    assert len(overlap.queries) == 2 and len(overlap.dirty) == 1


def test_a_cache_and_its_sources_give_the_same_documents(tmp_path: Path) -> None:
    documents = ["first é\nline", "", "second document", "third"]
    source = tmp_path / "corpus.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    prepare(make_plan([str(source)], ByteTokenizer()), tmp_path / "cache")

    def read(*sources: str) -> list[str]:
        return [text for piece in corpus_pieces(sources, "--source") for text in piece.documents() if text]

    wanted = [text for text in documents if text]
    assert read(str(tmp_path / "cache")) == read(str(source)) == wanted
    assert read(str(source), str(tmp_path / "cache")) == 2 * wanted


def record(query: str, text: str, match: float, **changes: object) -> Record:
    """A record of which only what counts here is set."""
    blank = {field.name: "" for field in dataclasses.fields(Record) if field.default is dataclasses.MISSING}
    numbers = {
        "step": 1,
        "seed": 0,
        "k": 0,
        "k_effective": 0,
        "lost": 0,
        "gold_tokens": 1,
        "prompt_tokens": 1,
    }
    values = {**blank, **numbers, "checkpoint": "run", "task": "t", "query": query, "cluster": query}
    values |= {"condition": "gold", "demonstrations": "per_query", "instruction": False, "scoring": "greedy"}
    values |= {"input": text, "gold": " x", "exact_match": match, "edit_distance": 1 - match}
    values |= {"token_accuracy": match, "log_likelihood": match - 1.0, "query_seen": False}
    return Record(**{**values, **changes})  # type: ignore[arg-type]


def evaluation() -> list[Record]:
    """Four dirty queries of which three are right, and six clean ones of which two are, under two seeds."""
    made = []
    for i in range(10):
        text = f"{SENTENCE} {i}" if i < 4 else f"{i} " + f"nothing{i} " * 14
        made += [record(f"q{i}", text, float(i in (0, 1, 2, 4, 5)), seed=seed) for seed in (0, 1)]
    return made


def test_all_is_the_mean_of_clean_and_dirty_weighted_by_their_queries() -> None:
    records = evaluation()
    overlaps = find_overlaps(record_texts(records), [SENTENCE])
    results = {r.metric: r for r in contamination_results(records, overlaps, ["corpus"])}
    found = results["exact_match"]
    assert (found.all.n, found.clean.n, found.dirty.n) == (10, 6, 4)
    assert (found.all.value, found.dirty.value) == (0.5, 0.75)
    assert found.clean.value == pytest.approx(1 / 3, abs=1e-6)
    assert found.relative_difference == pytest.approx(-1 / 3, abs=1e-5)
    for part in (found.all, found.clean, found.dirty):
        assert part.ci_low is not None and part.value is not None and part.ci_high is not None
        assert part.ci_low < part.value < part.ci_high
    assert results["log_likelihood"].relative_difference is None
    assert "75.0 [" in contamination_table(results.values())


def test_a_part_without_queries_has_no_value() -> None:
    records = evaluation()
    nothing: Mapping[str, Overlap] = find_overlaps(record_texts(records), [])
    found = contamination_results(records, nothing, ["corpus"])[0]
    assert found.dirty.value is None and found.dirty.n == 0 and found.all == found.clean
    assert found.relative_difference == 0


def test_the_text_of_a_query_is_the_whole_one_with_its_true_answer() -> None:
    cut, whole = record("q", "end", 1.0, lost=9), record("q", "the whole end", 1.0)
    flipped = record("q", "the whole end", 1.0, condition="flipped_labels", gold=" no")
    assert record_texts([flipped, cut, whole]) == record_texts([whole, cut, flipped])
    assert record_texts([flipped, cut, whole]) == {"t": {"q": "the whole end x"}}


def test_the_tool_writes_the_same_files_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "records" / "a.jsonl.gz", evaluation())
    (tmp_path / "corpus.txt").write_text(f"{SENTENCE}\n")
    flags = ["--source", str(tmp_path / "corpus.txt"), "--evaluation", str(tmp_path)]
    assert main(flags) == 2 and "results.jsonl" in capsys.readouterr().err
    (tmp_path / "results.jsonl").write_text("")
    assert main(flags) == 0
    first = [(tmp_path / name).read_bytes() for name in (RESULTS, QUERIES)]
    assert main(flags) == 0
    assert first == [(tmp_path / name).read_bytes() for name in (RESULTS, QUERIES)]
    queries = [json.loads(line) for line in first[1].splitlines()]
    assert [row["query"] for row in queries] == ["q0", "q1", "q2", "q3"]
    assert all(row["evidence"] in SENTENCE for row in queries)


@pytest.mark.parametrize("source", ["nowhere", "damaged"])
def test_bad_sources_are_one_line(tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "records" / "a.jsonl.gz", evaluation())
    (tmp_path / "results.jsonl").write_text("")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text("{}")
    assert main(["--source", str(tmp_path / source), "--evaluation", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and source in said and not (tmp_path / RESULTS).exists()
    with pytest.raises(InputError, match=source):
        corpus_pieces([str(tmp_path / source)], "--source")

"""Claims about tasks from TFDS data sets: real builders and schemas, rows as files give them, mock data."""

import functools
import types
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.evaluation.config import EvalConfig
from icl.evaluation.plan import make_plan
from icl.evaluation.requests import Key, trial_requests
from icl.tasks import TfdsTasks, tfds_source
from icl.tasks.pool import Distinct
from icl.tasks.tfds_readers import TFDS_TASKS
from icl.tasks.tfds_rows import TOGETHER, plain

BYTES = ByteTokenizer()

# A row of every data set in the form in which TFDS prepares it, and what the first example must look like.
_SQUAD = {
    "id": "1",
    "title": "The_Blitz",
    "context": "In March 4,300 sorties were flown.",
    "question": "How many sorties were flown?",
    "is_impossible": False,
    "plausible_answers": {"text": [], "answer_start": []},
    "answers": {"text": ["4,300"], "answer_start": [9]},
}
_TRIVIA = {
    "question": "Who wrote Emma?",
    "question_id": "q",
    "question_source": "",
    "entity_pages": {
        "doc_source": [], "filename": [], "title": [], "wiki_context": [],
    },
    "search_results": {
        "description": [], "filename": [], "rank": [], "title": [], "url": [], "search_context": [],
    },
    "answer": {
        "aliases": ["Austen"], "normalized_aliases": ["austen"], "matched_wiki_entity_name": "",
        "normalized_matched_wiki_entity_name": "", "normalized_value": "jane austen", "type": "x",
        "value": "Jane Austen",
    },
}  # fmt: skip
_QUAC = {
    "title": "Bach",
    "background": "A composer.",
    "section_title": "Life",
    "context": "He was born in Eisenach. CANNOTANSWER",
    "followup": "y",
    "yesno": "x",
    "question": "Where was he born?",
    "answers": {"text": ["Eisenach"], "answer_start": [15]},
    "orig_answer": {"text": "Eisenach", "answer_start": 15},
}
_RACE = {
    "article": "Tom has a dog.",
    "questions": ["Who has a dog?", "What does he have?"],
    "answers": ["B", "A"],
    "options": [["Ann", "Tom", "Sue", "Kim"], ["A dog", "A cat", "A cow", "A bee"]],
    "example_id": "r1",
}
_ARC = {
    "question": "What melts?",
    "choices": [{"text": "ice", "label": "A"}, {"text": "rock", "label": "B"}],
    "answerKey": "A",
    "id": "a1",
}
_WIC = {
    "word": "place", "sentence1": "Do you want to come over to my place?", "sentence2": "A place for it.",
    "start1": 31, "end1": 36, "start2": 2, "end2": 7, "label": 0, "idx": 0,
}  # fmt: skip
_NLI = {"premise": "It rains.", "hypothesis": "It is wet.", "label": 0, "idx": 0}
_TWO = {"sentence1": "It rains.", "sentence2": "It is wet.", "label": 0, "idx": 0}
_ANLI = {"uid": "u", "context": "It rains.", "hypothesis": "It is wet.", "label": "n"}
_ONE = {"sentence": "It is good.", "label": 1, "idx": 0}
_GSM = {
    "question": "How much is 2 and 3?",
    "answer": "2 + 3 = 5\n#### 5",
    "annotation": "",
    "short_answer": "5",
}
_ANLI_FORM = "anli {0}: anli {0}: It rains.\nQuestion: It is wet. True, False, or Neither? Neither"
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "natural_questions": (
        {"question": "who wrote emma", "answer": ["Jane Austen", "Austen"]},
        "Q: who wrote emma\n\nA: Jane Austen",
    ),
    "trivia_qa": (_TRIVIA, "Q: Who wrote Emma?\n\nA: Jane Austen"),
    "web_questions": (
        {"url": "u", "question": "who wrote emma", "answers": ["Jane Austen"]},
        "Q: who wrote emma\n\nA: Jane Austen",
    ),
    "coqa": (
        {
            "source": "cnn",
            "story": "Tom has a dog.",
            "questions": ["Who has it?", "What?"],
            "answers": {"input_text": ["Tom", "a dog"], "answer_start": [0, 8], "answer_end": [3, 13]},
        },
        "Tom has a dog.\n\nQ: Who has it?\n\nA: Tom",
    ),
    "quac": (
        _QUAC,
        "TITLE: Bach - Life\nPARAGRAPH: He was born in Eisenach.\n\n"
        "Q: Where was he born?\n\nA: Eisenach",
    ),
    "squad_v2": (
        _SQUAD,
        "Title: The Blitz\n\nBackground: In March 4,300 sorties were flown.\n\n"
        "Q: How many sorties were flown?\n\nA: 4,300",
    ),
    "drop": (
        {
            "passage": "Ann has 2 dogs.",
            "question": "How many?",
            "answer": "2",
            "validated_answers": ["2"],
            "query_id": "q",
        },
        "Passage: Ann has 2 dogs.\nQuestion: How many?\nAnswer: 2",
    ),
    "race_high": (_RACE, "Article:\nTom has a dog.\n\nQ: Who has a dog?\n\nA: Tom"),
    "race_middle": (_RACE, "Article:\nTom has a dog.\n\nQ: Who has a dog?\n\nA: Tom"),
    "lambada": ({"passage": "She took the dog home"}, "She took the dog ____. -> home"),
    "hellaswag": (
        {
            "activity_label": "Cooking",
            "context": "A man cuts bread. He",
            "endings": ["eats it.", "flies.", "swims.", "sings."],
            "label": 0,
            "split_type": "indomain",
            "source_id": "s",
        },
        "Cooking: A man cuts bread. He eats it.",
    ),
    "story_cloze": (
        {"context": "Tom lost his dog. He cried.", "endings": ["He was sad.", "He was glad."], "label": 0},
        "Tom lost his dog. He cried. He was sad.",
    ),
    "piqa": (
        {"id": "p", "goal": "To cut bread,", "sol1": "use a spoon.", "sol2": "use a knife.", "label": 1},
        "To cut bread, use a knife.",
    ),
    "winogrande": (
        {"sentence": "Ann thanked Sue because _ helped.", "option1": "Ann", "option2": "Sue", "label": 1},
        "Ann thanked Sue because Sue helped.",
    ),
    "winograd": (
        {
            "text": "Ann thanked Sue because she helped.",
            "option1": "Ann", "option1_normalized": "Ann", "option2": "Sue", "option2_normalized": "Sue",
            "pronoun_start": 24, "pronoun_end": 27, "pronoun_text": "she", "label": 1, "idx": 0,
        },
        "Ann thanked Sue because Sue helped.",
    ),
    "arc_easy": (_ARC, "Question: What melts?\nAnswer: ice"),
    "arc_challenge": (_ARC, "Question: What melts?\nAnswer: ice"),
    "openbookqa": (
        {
            "question": {
                "stem": "The sun", "choice_A": "is cold", "choice_B": "is hot", "choice_C": "is wet",
                "choice_D": "is soft",
            },
            "answerKey": "B", "fact1": "", "humanScore": 1.0, "clarity": 2.0, "turkIdAnonymized": "",
        },
        "The sun is hot",
    ),
    "boolq": (
        {"title": "t", "passage": "It rained.", "question": "was it wet", "answer": True},
        "It rained.\nquestion: was it wet?\nanswer: yes",
    ),
    "super_glue_boolq": (
        {"passage": "It rained.", "question": "was it dry", "label": 0, "idx": 0},
        "It rained.\nquestion: was it dry?\nanswer: no",
    ),
    "super_glue_cb": (
        {**_NLI, "label": "contradiction"},
        "It rains.\nquestion: It is wet. true, false, or neither?\nanswer: false",
    ),
    "super_glue_copa": (
        {
            "premise": "The grass is wet.", "choice1": "It rained.", "choice2": "It was dry.",
            "question": "cause", "label": 0, "idx": 0,
        },
        "The grass is wet because it rained.",
    ),
    "super_glue_multirc": (
        {
            "paragraph": "It rained.", "question": "What happened?", "answer": "Rain", "label": 1,
            "idx": {"paragraph": 0, "question": 0, "answer": 0},
        },
        "READING COMPREHENSION ANSWER KEY\n\nIt rained.\n\nWhat happened?\n- [True] Rain",
    ),
    "super_glue_record": (
        {
            "passage": "Ann met Sue.\n@highlight\nThey talked", "query": "@placeholder met Sue",
            "entities": ["Ann", "Sue"], "answers": ["Ann"], "idx": {"passage": 0, "query": 0},
        },
        "Ann met Sue.\n- They talked\n- Ann met Sue",
    ),
    "super_glue_rte": (_NLI, "It rains.\nquestion: It is wet. True or False?\nanswer: True"),
    "super_glue_wic": (
        _WIC,
        "Do you want to come over to my place?\nA place for it.\nquestion: Is the word 'place' used in the "
        "same way in the two sentences above?\nanswer: no",
    ),
    "super_glue_wsc": (
        {
            "text": "Ann said she slept.", "span1_index": 0, "span2_index": 2, "span1_text": "Ann",
            "span2_text": "she", "label": 1, "idx": 0,
        },
        'Passage: Ann said *she* slept.\nQuestion: In the passage above, what does the pronoun "*she*" '
        "refer to?\nAnswer: Ann",
    ),
    **{f"anli_r{number}": (_ANLI, _ANLI_FORM.format(number)) for number in (1, 2, 3)},
    "gsm8k": (_GSM, "Question: How much is 2 and 3?\nAnswer: 5"),
    "gsm8k_reasoning": (_GSM, "Question: How much is 2 and 3?\nAnswer: 2 + 3 = 5\n#### 5"),
    "glue_cola": (_ONE, "It is good.\nquestion: Is this sentence acceptable?\nanswer: yes"),
    "glue_sst2": (_ONE, "It is good.\nquestion: Is this negative or positive?\nanswer: positive"),
    "glue_mrpc": (_TWO, "It rains.\nIt is wet.\nquestion: Do both mean the same?\nanswer: no"),
    "glue_qqp": (
        {"question1": "Why?", "question2": "Who?", "label": 0, "idx": 0},
        "Why?\nWho?\nquestion: Do both mean the same?\nanswer: no",
    ),
    "glue_mnli": (
        {**_NLI, "label": "contradiction"},
        "It rains.\nquestion: It is wet. True, False, or Neither?\nanswer: False",
    ),
    "glue_qnli": (
        {"question": "Is it wet?", "sentence": "It rains.", "label": "entailment", "idx": 0},
        "It rains.\nquestion: Does this answer the question 'Is it wet?'?\nanswer: yes",
    ),
    "glue_rte": (_TWO, "It rains.\nquestion: It is wet. True or False?\nanswer: True"),
    "glue_wnli": (_TWO, "It rains.\nquestion: It is wet. True or False?\nanswer: False"),
    "wmt14_fr_en": ({"fr": "Il pleut.", "en": "It rains."}, "Il pleut. = It rains."),
    "wmt14_en_fr": ({"fr": "Il pleut.", "en": "It rains."}, "It rains. = Il pleut."),
    "wmt16_de_en": ({"de": "Es regnet.", "en": "It rains."}, "Es regnet. = It rains."),
    "wmt16_en_de": ({"de": "Es regnet.", "en": "It rains."}, "It rains. = Es regnet."),
    "wmt16_ro_en": ({"ro": "Plouă.", "en": "It rains."}, "Plouă. = It rains."),
    "wmt16_en_ro": ({"ro": "Plouă.", "en": "It rains."}, "It rains. = Plouă."),
}  # fmt: skip


@pytest.fixture(autouse=True)
def numbers_of_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """SuperGLUE's builder and the writer of nested lists name types by TensorFlow, not installed here."""
    from tensorflow_datasets.core.features import feature
    from tensorflow_datasets.text import super_glue

    monkeypatch.setattr(super_glue, "tf", types.SimpleNamespace(int32=np.int32))
    monkeypatch.setattr(feature.TensorInfo, "dtype", property(lambda info: info.np_dtype))


# Mock rows are random: the marks and letters of answers that these tasks need may all be missing.
_SELDOM = {
    "gsm8k", "gsm8k_reasoning", "race_high", "race_middle", "super_glue_record", "super_glue_wsc", "winograd",
    "winogrande",
}  # fmt: skip


def mock_rows(numbers: list[int], generator: Any) -> list[Any]:
    """TFDS's own mock of `__getitems__` asks for an argument `self` that it is never given."""
    return [generator[number] for number in numbers]


@functools.cache
def features(builder: str) -> Any:
    return tfds.builder(builder).info.features


def test_the_fixtures_are_of_all_tasks() -> None:
    assert ROWS.keys() == TFDS_TASKS.keys()


@pytest.mark.parametrize("name", TFDS_TASKS)
def test_a_row_of_the_real_schema_becomes_a_prompt(name: str) -> None:
    reading, (row, expected) = TFDS_TASKS[name], ROWS[name]
    schema = features(reading.builder)
    stored = schema.deserialize_example_np(schema.serialize_example(schema.encode_example(row)))
    example = next(iter(reading.read(plain(stored))))
    assert reading.template.context(example) + reading.template.completion(example) == expected
    assert not example.choices or example.target in example.choices
    assert example.key


@pytest.mark.parametrize("name", TFDS_TASKS)
def test_mock_data_of_the_real_builder_makes_a_task(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for cached in (tfds_source.open_builder, tfds_source.data_source):
        cached.cache_clear()
    monkeypatch.setattr("icl.tasks.tfds.check_prepared", lambda *_: None)
    monkeypatch.setattr("tensorflow_datasets.testing.mocking._getitems", mock_rows)
    with tfds.testing.mock_data(num_examples=200):  # the same rows in every split
        try:
            (task,) = TfdsTasks(names=(name,), max_train=100, max_test=100).build("tfds")
        except InputError as error:
            assert "training and" in str(error)
            assert name in _SELDOM
            return
        finally:
            for cached in (tfds_source.open_builder, tfds_source.data_source):
                cached.cache_clear()
    assert task.name == name
    # Its prompts can be asked, with and without demonstrations.
    plan = make_plan(EvalConfig(ks=(0, 1), seeds=1, queries=2), {"tfds": (task,)}, BYTES, 10**6)
    for trial in plan.trials[name]:
        request, *_ = trial_requests(trial, BYTES)
        assert {branch.key for branch in request.branches} >= {Key("query", 0), Key("query", 1)}
        assert len(request.branches[0].options) == max(1, len(trial.query.example.choices))


def test_turns_share_the_passage_as_their_key() -> None:
    first, second = TFDS_TASKS["coqa"].read(ROWS["coqa"][0])
    assert first.key == second.key == "tom has a dog."
    assert second.input == "Tom has a dog.\n\nQ: Who has it?\n\nA: Tom\n\nQ: What?\n\nA:"


def test_rows_of_one_passage_are_read_together() -> None:
    one, two, alone = (
        {**_SQUAD, "id": "a"},
        {**_SQUAD, "id": "b", "question": "When?", "answers": {"text": ["March"]}},
        {**_SQUAD, "context": "It rained."},
    )
    reading = TFDS_TASKS["squad_v2"]
    assert reading.together is not None
    assert reading.together(one) == reading.together(two) != reading.together(alone)
    first, second = reading.read({TOGETHER: [two, one]})
    assert second.input == f"{first.input} 4,300\n\nQ: When?\n\nA:" and second.key == first.key


@pytest.mark.parametrize(
    ("nouns", "choices"),
    [
        ((("Sue", 0), ("Ann", 1)), ("Ann", "Sue")),
        ((("Ann", 1),), ()),
        ((("Ann", 1), ("Ann", 1)), ()),
        ((("Sue", 0),), None),
        ((("Sue", -1), ("Ann", -1)), None),
    ],
)
def test_the_nouns_of_a_passage_are_its_options(nouns: Any, choices: Any) -> None:
    row = ROWS["super_glue_wsc"][0]
    rows = [{**row, "span1_text": noun, "label": label} for noun, label in nouns]
    examples = list(TFDS_TASKS["super_glue_wsc"].read({TOGETHER: rows}))
    assert [(example.target, example.choices) for example in examples] == (
        [] if choices is None else [("Ann", choices)]
    )


def test_every_answer_to_a_question_is_a_query_and_all_are_one_demonstration() -> None:
    row, reading = ROWS["super_glue_multirc"][0], TFDS_TASKS["super_glue_multirc"]
    rows = {TOGETHER: [row, {**row, "answer": "Snow", "label": 0}]}
    first, second = reading.read(rows)
    assert first.input == second.input and first.group == second.group
    assert (first.target, second.target) == ("[True] Rain", "[False] Snow")
    assert len(Distinct([first, second, second]).examples) == 2
    assert reading.shown is not None
    (shown,) = reading.shown(rows)
    assert shown.target == "[True] Rain\n- [False] Snow" and shown.input == first.input


def test_twins_of_a_schema_share_their_start_and_are_two_queries() -> None:
    row = ROWS["winogrande"][0]
    twin = {**row, "sentence": row["sentence"].replace("helped", "asked"), "label": 0}
    (one,), (two,) = (TFDS_TASKS["winogrande"].read(each) for each in (row, twin))
    assert one.input == two.input and one.key == two.key
    assert Distinct([one, two, one]).examples == [one, two]


def test_all_right_entities_and_all_human_answers_are_right() -> None:
    row = {**ROWS["super_glue_record"][0], "answers": ["Ann", "Sue"]}
    (example,) = TFDS_TASKS["super_glue_record"].read(row)
    assert (example.target, example.aliases) == ("Ann met Sue", ("Sue met Sue",))
    row = {**ROWS["coqa"][0], "additional_answers": {"0": {"input_text": ["He", "a dog"]}}}
    assert [each.aliases for each in TFDS_TASKS["coqa"].read(row)] == [("He",), ("a dog",)]


def test_rows_read_together_are_drawn_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**_SQUAD, "id": str(i), "context": f"C{i // 4}", "question": f"Q{i}?"} for i in range(40)]
    monkeypatch.setattr("icl.tasks.tfds.open_builder", lambda *_: None)
    monkeypatch.setattr("icl.tasks.tfds.check_prepared", lambda *_: None)
    monkeypatch.setattr("icl.tasks.tfds.data_source", lambda *_: rows)
    monkeypatch.setattr("icl.tasks.tfds.read_rows", lambda *_: iter(rows))
    (task,) = TfdsTasks(names=("squad_v2",), max_test=8, max_train=0).build("tfds")
    queries = [query.example for query in task.queries("held_out")]
    assert len(queries) == 8 and len({example.key for example in queries}) == 2
    assert sorted(example.input.count("Q: ") for example in queries) == [1, 1, 2, 2, 3, 3, 4, 4]


def test_without_demonstrations_lambada_goes_on_and_translation_asks_in_words() -> None:
    for name, expected in (
        ("lambada", "She took the dog home"),
        ("wmt16_de_en", "Q: What is the English translation of Es regnet. A: It rains."),
        ("wmt14_en_fr", "Q: What is the French translation of It rains. A: Il pleut."),
    ):
        template = TFDS_TASKS[name].template.after(0)
        (example,) = TFDS_TASKS[name].read(ROWS[name][0])
        assert template.context(example) + template.completion(example) == expected
        assert TFDS_TASKS[name].template.after(1) == TFDS_TASKS[name].template


def test_rows_without_a_label_give_no_example() -> None:
    assert not list(TFDS_TASKS["piqa"].read({**ROWS["piqa"][0], "label": -1}))
    assert not list(TFDS_TASKS["natural_questions"].read({"question": "q", "answer": []}))
    assert not list(TFDS_TASKS["trivia_qa"].read({**_TRIVIA, "answer": {"value": "<unk>"}}))


def test_an_unanswerable_question_says_so() -> None:
    (example,) = TFDS_TASKS["squad_v2"].read({**_SQUAD, "answers": {"text": [], "answer_start": []}})
    assert example.target == "N/A"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"TfdsTasks\.names = \(\)"),
        ({"names": ("hellaswga",)}, r"no TFDS task 'hellaswga'; did you mean 'hellaswag'\?"),
        ({"names": ("zzz",)}, "there are"),
        ({"names": ("piqa",), "max_train": -1}, "max_train = -1"),
        ({"names": ("piqa",), "held_out": ("boolq",)}, "'boolq' names none of"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TfdsTasks(**settings)


def test_a_data_set_that_is_not_there_says_how_to_make_it(tmp_path: Any) -> None:
    with pytest.raises(InputError, match=r"tfds:piqa: not prepared in .*tfds build piqa"):
        TfdsTasks(names=("piqa",), data_dir=str(tmp_path)).build("tfds")

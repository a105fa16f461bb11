"""The table of tasks that TFDS has: its data set, splits, reader, template and rules for each name.

What the GPT-3 paper has (arXiv 2005.14165, appendix G) is written and scored its way; the delimiter is one or
two newlines, two where an answer or an input may hold one.
"""

import dataclasses
from collections.abc import Callable, Hashable

from icl.tasks import tfds_rows as rows
from icl.tasks.task import AnswerRule, CorpusMetric, OptionRule, Template
from icl.tasks.tfds_rows import Reader, Row

_QUESTION = Template(input_prefix="Q: ", separator="\n\nA:", target_prefix=" ", delimiter="\n\n")
_WHOLE = Template(separator="", target_prefix=" ", delimiter="\n\n")
_BLANK = Template(
    separator=" ____. ->",
    target_prefix=" ",
    delimiter="\n\n",
    instruction_delimiter="\n\n",
    alone=Template(separator="", target_prefix=" ", delimiter="\n\n"),
)
_WSC = (
    "Final Exam with Answer Key\nInstructions: Please carefully read the following passages. For each "
    "passage, you must identify which noun the pronoun marked in *bold* refers to.\n====="
)


@dataclasses.dataclass(frozen=True)
class Reading:
    """A task of the table.

    Attributes:
      builder: Name of the TFDS data set, with its configuration.
      read: Turns a row into examples.
      shown: Turns a row into demonstrations, where they are not written as queries are.
      together: Names what a row speaks of, where the rows that speak of the same are read as one: a passage.
      template: How examples are written.
      train: Split that demonstrations and training rows come from.
      test: Split of the queries. Where it is the same, the set is shared and never trained on.
      instruction: What the task asks, in words.
      answer_rule: How a generated answer is held against the right ones.
      option_rule: How options compare.
      answer_context: What stands before an option for the rule "unconditional".
      corpus_metrics: Metrics of all its answers together that are no mean over queries.
    """

    builder: str
    read: Reader
    template: Template = _WHOLE
    train: str = "train"
    test: str = "validation"
    instruction: str | None = None
    answer_rule: AnswerRule = "exact"
    option_rule: OptionRule = "token"
    answer_context: str = "Answer:"
    corpus_metrics: tuple[CorpusMetric, ...] = ()
    shown: Reader | None = None
    together: Callable[[Row], Hashable] | None = None


def _equals(language: str) -> Template:
    """Both sentences with "=" between; a sentence alone is asked for in words."""
    asked = f"Q: What is the {language} translation of "
    alone = Template(input_prefix=asked, separator=" A:", target_prefix=" ", delimiter="\n")
    return Template(separator=" =", target_prefix=" ", delimiter="\n", alone=alone)


def _anli(number: int) -> Reading:
    """A round of ANLI; the paper's prompts show its name twice (figures G.2, G.7 and G.10)."""
    form = f"anli {number}: anli {number}: {{0}}\nQuestion: {{1}} True, False, or Neither?"
    labels = ("True", "Neither", "False")
    return Reading(f"anli/r{number}", rows.pairs("context", "hypothesis", labels, form), test="test")


def _same(*fields: str) -> Callable[[Row], Hashable]:
    """Rows that have these fields in common are read together."""
    return lambda row: tuple(row[field] for field in fields)


_ENTAILMENT = "{0}\nquestion: {1} True or False?\nanswer:"
_NEITHER = "{0}\nquestion: {1} True, False, or Neither?\nanswer:"
_SAME = "{0}\n{1}\nquestion: Do both mean the same?\nanswer:"

TFDS_TASKS: dict[str, Reading] = {
    "natural_questions": Reading(
        "natural_questions_open", rows.questions("answer"), _QUESTION, answer_rule="squad"
    ),
    "trivia_qa": Reading("trivia_qa/unfiltered.nocontext", rows.trivia_qa, _QUESTION, answer_rule="squad"),
    "web_questions": Reading(
        "web_questions", rows.questions("answers"), _QUESTION, test="test", answer_rule="squad"
    ),
    "coqa": Reading("coqa", rows.coqa, test="test", answer_rule="coqa"),
    "quac": Reading("quac", rows.quac, answer_rule="coqa"),
    "squad_v2": Reading("squad/v2.0", rows.squad, answer_rule="squad", together=_same("title", "context")),
    "drop": Reading("drop", rows.drop, test="dev", answer_rule="drop"),
    "race_high": Reading(
        "race/high", rows.race, test="test", option_rule="unconditional", answer_context="A:"
    ),
    "race_middle": Reading(
        "race/middle", rows.race, test="test", option_rule="unconditional", answer_context="A:"
    ),
    "lambada": Reading(  # its training split is whole novels
        "lambada",
        rows.lambada,
        _BLANK,
        train="test",
        test="test",
        instruction="Fill in blank:",
        corpus_metrics=("perplexity",),
    ),
    "hellaswag": Reading("hellaswag", rows.hellaswag),
    "story_cloze": Reading("story_cloze/2016", rows.story_cloze, train="validation", test="test"),
    "piqa": Reading("piqa", rows.piqa),
    "winogrande": Reading("winogrande", rows.winogrande, train="train_xl"),
    "winograd": Reading("wsc273", rows.wsc273, train="test", test="test"),
    "arc_easy": Reading(
        "ai2_arc/ARC-Easy", rows.arc, test="test", option_rule="unconditional", answer_context="Answer:"
    ),
    "arc_challenge": Reading(
        "ai2_arc/ARC-Challenge", rows.arc, test="test", option_rule="unconditional", answer_context="Answer:"
    ),
    "openbookqa": Reading(
        "openbookqa", rows.openbookqa, test="test", option_rule="unconditional", answer_context="Answer:"
    ),
    "boolq": Reading("bool_q", rows.bool_q),
    "super_glue_boolq": Reading("super_glue/boolq", rows.bool_q),
    "super_glue_cb": Reading(
        "super_glue/cb",
        rows.pairs(
            "premise",
            "hypothesis",
            ("true", "false", "neither"),
            "{0}\nquestion: {1} true, false, or neither?\nanswer:",
        ),
        corpus_metrics=("macro_f1",),
    ),
    "super_glue_copa": Reading("super_glue/copa", rows.copa),
    "super_glue_multirc": Reading(
        "super_glue/multirc",
        rows.multirc,
        corpus_metrics=("f1a", "group_accuracy"),
        shown=rows.multirc_shown,
        together=_same("paragraph", "question"),
    ),
    "super_glue_record": Reading("super_glue/record", rows.record, corpus_metrics=("record_em", "record_f1")),
    "super_glue_rte": Reading(
        "super_glue/rte", rows.pairs("premise", "hypothesis", ("True", "False"), _ENTAILMENT)
    ),
    "super_glue_wic": Reading("super_glue/wic", rows.wic),
    "super_glue_wsc": Reading(
        "super_glue/wsc.fixed",
        rows.wsc,
        instruction=_WSC,
        answer_rule="squad",  # the paper's answers are in small letters
        together=_same("text", "span2_index"),
    ),
    "anli_r1": _anli(1),
    "anli_r2": _anli(2),
    "anli_r3": _anli(3),
    "gsm8k": Reading("gsm8k", rows.gsm8k, test="test"),
    "gsm8k_reasoning": Reading("gsm8k", rows.gsm8k_reasoning, test="test"),
    "glue_cola": Reading(
        "glue/cola",
        rows.sentences(rows.GUESSES, "{0}\nquestion: Is this sentence acceptable?\nanswer:"),
    ),
    "glue_sst2": Reading(
        "glue/sst2",
        rows.sentences(("negative", "positive"), "{0}\nquestion: Is this negative or positive?\nanswer:"),
    ),
    "glue_mrpc": Reading("glue/mrpc", rows.pairs("sentence1", "sentence2", rows.GUESSES, _SAME)),
    "glue_qqp": Reading("glue/qqp", rows.pairs("question1", "question2", rows.GUESSES, _SAME)),
    "glue_mnli": Reading(
        "glue/mnli",
        rows.pairs("premise", "hypothesis", ("True", "Neither", "False"), _NEITHER),
        test="validation_matched",
    ),
    "glue_qnli": Reading(
        "glue/qnli",
        rows.pairs(
            "sentence",
            "question",
            ("yes", "no"),
            "{0}\nquestion: Does this answer the question '{1}'?\nanswer:",
        ),
    ),
    "glue_rte": Reading("glue/rte", rows.pairs("sentence1", "sentence2", ("True", "False"), _ENTAILMENT)),
    "glue_wnli": Reading("glue/wnli", rows.pairs("sentence1", "sentence2", ("False", "True"), _ENTAILMENT)),
}
_LANGUAGES = {"en": "English", "fr": "French", "de": "German", "ro": "Romanian"}
_TRANSLATIONS = (("wmt14_translate", "fr"), ("wmt16_translate", "de"), ("wmt16_translate", "ro"))
TFDS_TASKS |= {
    f"{builder.removesuffix('_translate')}_{source}_{target}": Reading(
        f"{builder}/{language}-en",
        rows.translation(source, target),
        _equals(_LANGUAGES[target]),
        test="test",
        corpus_metrics=("bleu",),
    )
    for builder, language in _TRANSLATIONS
    for source, target in ((language, "en"), ("en", language))
}

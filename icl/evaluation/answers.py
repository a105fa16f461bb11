"""From what a model said to the record of a query at one K."""

from collections.abc import Mapping, Sequence
from typing import Any

from icl.data.tokenizer import Tokenizer
from icl.evaluation.metrics import best, exact_match, nearest, option_scores, token_accuracy, word_f1
from icl.evaluation.plan import Trial
from icl.evaluation.prompts import common_prefix, encode, prompt_hash
from icl.evaluation.records import Record, rounded
from icl.evaluation.requests import Key
from icl.evaluation.results import Source
from icl.evaluation.scoring import Answer, Scored, answer_text


def make_record(
    source: Source, tokenizer: Tokenizer, trial: Trial, k: int, answers: Mapping[Key, Answer], decoding: str
) -> Record:
    """The record of a trial at one K.

    Args:
      source: The checkpoint.
      tokenizer: The checkpoint's.
      trial: What was asked.
      k: The number of demonstrations that was asked for.
      answers: What was said, by what it was said to.
      decoding: The name of the way in which text was generated.
    """
    at = min(k, trial.max_k)
    template, example = trial.template_at(k), trial.query.example
    answer = answers[Key("query", at)]
    gold, right = template.completion(example), (example.target, *example.aliases)
    rule = trial.task.answer_rule
    generated = None
    if trial.budget:
        generated = answer_text(tokenizer, answer.generated, trial.budget, template.delimiter)
    said: dict[str, Any] = {"prediction": generated}
    scored, scoring = answer.options[0], decoding
    if trial.is_choice:
        chosen = _options(trial, at, answers)
        scored = answer.options[chosen["gold_option"]]
        if trial.settings.choice_answers == "generated":
            chosen["prediction"] = generated
        else:
            scoring = f"options:{trial.task.option_rule}"
        if trial.settings.choice_answers == "both" and generated is not None:
            chosen |= {"generated": generated, "generated_match": exact_match(generated, right, rule)}
            chosen["generated_scoring"] = decoding
        said = chosen
    prompt = trial.prompt(k)
    own = len(scored.tokens) if trial.is_choice else _own_tokens(tokenizer, prompt, gold, template.delimiter)
    settings = trial.settings
    is_sample = trial.seed == trial.order == 0 and trial.number < settings.sample_prompts
    if is_sample:
        said |= {
            "prompt": prompt,
            "pieces": tuple(tokenizer.continuation([token]) for token in scored.tokens),
            "piece_log_likelihoods": tuple(rounded(value) for value in scored.log_likelihoods),
        }
    return Record(
        checkpoint=source.checkpoint,
        step=source.step,
        task=trial.task.name,
        split=settings.split,
        instance=trial.query.instance.name,
        query=trial.query.name,
        cluster=trial.cluster,
        seed=trial.seed,
        k=k,
        k_effective=at,
        instruction=trial.instructed,
        condition=trial.condition,
        demonstrations=settings.demonstrations,
        template=trial.format,
        order=trial.order,
        prompt_sha256=prompt_hash(prompt),
        prompt_tokens=len(encode(tokenizer, prompt, gold, template.delimiter).prompt),
        lost=trial.lost,
        input=example.input,
        gold=gold,
        gold_tokens=len(scored.tokens),
        exact_match=exact_match(said["prediction"], right, rule),
        token_accuracy=rounded(token_accuracy(scored.tokens, scored.argmax)),
        log_likelihood=rounded(scored.log_likelihoods.mean()),
        answer_log_likelihood=rounded(scored.log_likelihoods[:own].sum()),
        edit_distance=rounded(nearest(said["prediction"], right)),
        query_seen=trial.query_seen(k),
        scoring=scoring,
        f1=None if rule == "exact" else rounded(word_f1(said["prediction"], right, rule)),
        aliases=example.aliases,
        group=example.group,
        **said,
    )


def _own_tokens(tokenizer: Tokenizer, prompt: str, gold: str, delimiter: str) -> int:
    """How many of the scored tokens are the answer's own, without the delimiter; one at least."""
    tokens = encode(tokenizer, prompt, gold, delimiter)
    start = tokens.full[: len(tokens.full) - len(tokenizer.encode(prompt + gold + delimiter))]
    without = start + tokenizer.encode(prompt + gold)
    return max(1, common_prefix(tokens.full, without) - tokens.gold_start)


def _options(trial: Trial, k: int, answers: Mapping[Key, Answer]) -> dict[str, Any]:
    """The fields of a record about its options, and what it predicts by the task's rule."""
    example = trial.query.example
    scored = answers[Key("query", k)].options
    likelihoods = _sums(scored)
    without_content, unconditional, channel = (
        _sums(answers[key].options) if key in answers else ()
        for key in (Key("without_content", k), Key("unconditional"), Key("channel", k))
    )
    lengths = tuple(len(each.tokens) for each in scored)
    scores = option_scores(
        example.choices,
        lengths,
        likelihoods,
        unconditional,
        example.ending,
        calibration=without_content,
        channel=channel,
    )
    return {
        "options": example.choices,
        "ending": example.ending,
        "gold_option": example.choices.index(example.target),
        "option_tokens": lengths,
        "option_log_likelihoods": likelihoods,
        "unconditional_log_likelihoods": unconditional,
        "calibration_log_likelihoods": without_content,
        "channel_log_likelihoods": channel,
        "prediction": example.choices[best(scores[trial.task.option_rule])],
    }


def _sums(scored: Sequence[Scored]) -> tuple[float, ...]:
    return tuple(rounded(each.log_likelihoods.sum()) for each in scored)

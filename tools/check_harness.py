"""Holds the harness's model `icl` against the harness's own Hugging Face model, request by request.

    python -m tools.check_harness [--model FOLDER] [--documents 24] [--layers 2] [--width 64] [--rounds 2]

Both get the same weights and the same local task file, with 0, 1 and 5 demonstrations: options, contexts
that differ (as of Winograd schemas), cloze, rolling likelihoods, and text, greedy and by beam search. Some
documents are longer than the context. Without `--model` the weights are those of a GPT-2 of random weights,
read as bytes; with it, any folder of Hugging Face that both can read. Printed is, for each kind of request,
the largest difference of a log-likelihood, how many texts and greedy flags differ, and the time that either
spends on requests, on the clock and as a ratio also of all processors: the fastest of its rounds, ours
without compilation; of several batch sizes of the other the fastest counts. (It sums in float32, which is
most of the difference of rolling likelihoods.) Wants the extra `peers` (torch, transformers, lm-eval); no
network.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from icl import host_memory
from icl.data.keys import generator
from icl.interop.huggingface import write_folder
from icl.model import ModelConfig
from tools.benchmark_peers import TOKENIZER, random_params

TOLERANCE = 1e-3
KS = (0, 1, 5)
CONTEXT = 256
_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "was",
    "for",
    "that",
    "on",
    "as",
    "with",
    "by",
    "at",
    "from",
    "or",
]
_METHODS = ("loglikelihood", "loglikelihood_rolling", "generate_until")


class Case(NamedTuple):
    """A kind of request: the task's settings, and its numbers of demonstrations."""

    name: str
    settings: Mapping[str, Any]
    ks: tuple[int, ...] = KS


CASES = (
    Case(
        "options",
        {
            "output_type": "multiple_choice",
            "doc_to_text": "{{passage}}\nQuestion: {{question}}?\nAnswer:",
            "doc_to_choice": "options",
            "doc_to_target": "gold",
        },
    ),
    Case(
        "contexts",
        {
            "output_type": "multiple_choice",
            "doc_to_text": "gold",
            "doc_to_choice": "contexts",
            "doc_to_target": "{{question}}",
        },
    ),
    Case(
        "cloze",
        {
            "output_type": "loglikelihood",
            "doc_to_text": "{{passage}}\nQuestion: {{question}}?\nAnswer: ",  # ends in a space
            "doc_to_target": "{{options[gold]}}",
            "target_delimiter": "",
        },
    ),
    Case(
        "text",
        {
            "output_type": "generate_until",
            "doc_to_text": "{{passage}}\nQuestion: {{question}}?\nAnswer:",
            "doc_to_target": "{{options[gold]}}",
            "generation_kwargs": {"until": ["\n\n", "e", ". "], "max_gen_toks": 24, "do_sample": False},
        },
    ),
    Case(
        "beams",
        {
            "output_type": "generate_until",
            "doc_to_text": "{{passage}}\nQuestion: {{question}}?\nAnswer:",
            "doc_to_target": "{{options[gold]}}",
            # Without a text to stop at: of beams the harness's criterion sees some only.
            "generation_kwargs": {
                "until": [],
                "max_gen_toks": 12,
                "num_beams": 4,
                "length_penalty": 0.6,
                "early_stopping": "never",
            },
        },
        (1,),
    ),
    Case(
        "rolling",
        {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{passage}}"},
        (0,),
    ),
)
_METRICS = {
    "loglikelihood_rolling": {"metric": "bits_per_byte", "aggregation": "bits_per_byte"},
    "generate_until": {"metric": "exact_match", "aggregation": "mean"},
}


class Run(NamedTuple):
    """Responses of a model by number of the document, and the seconds it spent on requests.

    On a busy machine `clock` says little; `processors` are the seconds of all of them together.
    """

    responses: dict[int, Any]
    clock: float
    processors: float


class Compared(NamedTuple):
    """What two models said to the same requests: `apart` in nats, and texts and flags that differ.

    `distinct` responses are those that no other request got, which two models can disagree about.
    """

    requests: int
    distinct: int
    apart: float
    differing: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 1 where the two models differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", type=Path, help="a folder of Hugging Face; a random GPT-2 by default")
    parser.add_argument("--documents", type=int, default=24)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--std", type=float, default=0.2, help="of the random weights")
    parser.add_argument(
        "--context", type=int, default=CONTEXT, help="in tokens; longer prompts lose their start"
    )
    parser.add_argument("--words", type=int, default=12, help="of a passage, about")
    parser.add_argument("--long", type=int, default=6, help="each so-many-th exceeds the context; 0 for none")
    parser.add_argument("--rounds", type=int, default=2, help="the fastest counts")
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--ks", default=",".join(map(str, KS)), help="numbers of demonstrations")
    parser.add_argument("--batch_sizes", default="1,8", help="of the harness's model; the fastest counts")
    settings = parser.parse_args(arguments)
    host_memory.keep_freed_memory()
    logging.disable(logging.WARNING)  # that prompts lose their start, for each of them
    with tempfile.TemporaryDirectory() as folder:
        try:
            models = Models(Path(folder), settings)
        except ImportError as error:
            print(f"{error}; expected the extra 'peers': pip install -e '.[peers]'", file=sys.stderr)
            return 2
        write_documents(Path(folder), settings)
        print(
            f"{models}\n\n{'requests':10}  K number distinct    apart differ   ours harness ratio processors"
        )
        failed = False
        for case in CASES:
            asked = [k for k in case.ks if str(k) in settings.ks.split(",")]
            for k in asked if case.name in settings.cases.split(",") else ():
                failed |= not compare(models, case, k, settings.rounds)
    return int(failed)


def compare(models: "Models", case: Case, k: int, rounds: int) -> bool:
    """Asks both models, prints a line, and says whether they agree."""
    ours = [models.run(models.ours, case, k) for _ in range(rounds + 1)][1:]  # the first one compiles
    theirs = [models.run(model, case, k) for model in models.theirs for _ in range(rounds)]
    found = [difference(ours[0].responses, run.responses) for run in theirs]
    apart, differing = max(each.apart for each in found), max(each.differing for each in found)
    assert ours[0].responses == ours[-1].responses
    mine, harness = (min(run.clock for run in runs) for runs in (ours, theirs))
    processors = [min(run.processors for run in runs) for runs in (ours, theirs)]
    print(
        f"{case.name:10} {k:2} {found[0].requests:6} {found[0].distinct:8} {apart:8.1e} {differing:6} "
        f"{mine:6.2f} {harness:7.2f} {harness / mine:5.1f} {processors[1] / processors[0]:10.1f}",
        flush=True,
    )
    return apart < TOLERANCE and not differing


def difference(ours: Mapping[int, Any], theirs: Mapping[int, Any]) -> Compared:
    """The largest difference of a likelihood, and the number of texts and greedy flags that differ."""
    assert ours.keys() == theirs.keys()
    pairs = [pair for number in ours for pair in zip(flat(ours[number]), flat(theirs[number]), strict=True)]
    numbers = [abs(a - b) for a, b in pairs if isinstance(a, float) and isinstance(b, float)]
    assert np.isfinite(numbers).all()
    differing = sum(a != b for a, b in pairs if not isinstance(a, float))
    said = [a for a, _ in pairs if not isinstance(a, bool)]
    return Compared(len(said), len(set(said)), max(numbers, default=0.0), differing)


def flat(response: Any) -> Iterator[float | str | bool]:
    """The likelihoods, flags and texts of a response, one by one; they may come back as strings."""
    if isinstance(response, list | tuple):
        for part in response:
            yield from flat(part)
    elif isinstance(response, str) and response in ("True", "False"):
        yield response == "True"
    else:
        yield response


class Models:
    """Our model, and the harness's for each batch size, of the same weights."""

    def __init__(self, folder: Path, settings: argparse.Namespace) -> None:
        """Loads them, from a folder that is written first where none is given.

        Raises:
          ImportError: the extra `peers` is not installed.
        """
        # Before the imports, which read them.
        os.environ |= {
            "HF_HOME": str(folder / "hub"),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "LMEVAL_LOG_LEVEL": "ERROR",
        }
        import lm_eval
        import torch
        import transformers
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        from icl.interop.lm_eval import IclLM

        self._folder, self._lm_eval = folder, lm_eval
        self._tasks = TaskManager(include_defaults=False)
        torch.set_num_threads(os.cpu_count() or 1)
        transformers.utils.logging.set_verbosity_error()
        limit = {"max_length": settings.context}
        if settings.model:
            source = settings.model
            self.ours = IclLM(f"hf:{source}", **limit)
        else:
            source = folder / "model"
            config = ModelConfig(
                vocab_size=TOKENIZER.vocab_size,
                num_layers=settings.layers,
                embed_dim=settings.width,
                num_heads=max(2, settings.width // 64),
                max_length=settings.context,
            )
            params = random_params(config, settings.std)
            write_folder(source, config, params, TOKENIZER)
            self.ours = IclLM(config=config, params=params, tokenizer=TOKENIZER, **limit)
        with contextlib.redirect_stderr(io.StringIO()):  # bars of progress
            self.theirs = [
                HFLM(str(source), device="cpu", dtype="float32", batch_size=int(size), **limit)
                for size in settings.batch_sizes.split(",")
            ]
        size = self.ours.get_model_info()["model_num_parameters"]
        cores = f"torch {torch.__version__} on {os.cpu_count()} cores"
        self._named = (
            f"lm-eval {lm_eval.__version__}, transformers {transformers.__version__}, {cores}; "
            f"{size:,} parameters, context {self.ours.max_length}"
        )

    def __str__(self) -> str:
        return self._named

    def run(self, model: Any, case: Case, k: int) -> Run:
        """Asks one model everything."""
        spent: list[tuple[float, float]] = []
        for method in _METHODS:
            setattr(model, method, _timed(getattr(type(model), method).__get__(model), spent))
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # bars of progress
                results = self._lm_eval.simple_evaluate(
                    model=model, tasks=[self._task(case, k)], task_manager=self._tasks, bootstrap_iters=0
                )
        finally:
            for method in _METHODS:
                delattr(model, method)
        (samples,) = results["samples"].values()
        clock, processors = (sum(seconds) for seconds in zip(*spent, strict=True))
        return Run({sample["doc_id"]: sample["resps"] for sample in samples}, clock, processors)

    def _task(self, case: Case, k: int) -> dict[str, Any]:
        metric = _METRICS.get(case.settings["output_type"], {"metric": "acc", "aggregation": "mean"})
        files = {split: str(self._folder / f"{split}.jsonl") for split in ("train", "test")}
        return {
            "task": f"{case.name}_{k}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "training_split": "train",
            "fewshot_split": "train",
            "test_split": "test",
            "num_fewshot": k,
            "metric_list": [metric | {"higher_is_better": True}],
            **case.settings,
        }


def _timed(call: Any, spent: list[tuple[float, float]]) -> Any:
    def run(*arguments: Any, **options: Any) -> Any:
        clock, processors = time.monotonic(), time.process_time()
        answers = call(*arguments, **options)
        spent.append((time.monotonic() - clock, time.process_time() - processors))
        return answers

    return run


def write_documents(folder: Path, settings: argparse.Namespace) -> None:
    """Documents of a passage and a question; some of those tested are longer than the context."""
    for split, count in (("train", 40), ("test", settings.documents)):
        with (folder / f"{split}.jsonl").open("w") as file:
            for n in range(count):
                rng = generator("check of the harness", split, n)
                is_long = split == "test" and settings.long and n % settings.long == settings.long - 1
                words = settings.context if is_long else settings.words
                file.write(json.dumps(_document(rng, words)) + "\n")


def _document(rng: np.random.Generator, words: int) -> dict[str, Any]:
    def text(number: int) -> str:
        return " ".join(rng.choice(_WORDS, max(1, number)))

    passage = text(int(rng.integers(words // 2, 2 * words)))
    options = [text(int(rng.integers(1, 5))) for _ in range(4)]
    contexts = [f"{passage}. {text(1)}" for _ in range(2)]
    document = {"passage": passage, "question": text(5), "options": options, "contexts": contexts}
    return document | {"gold": int(rng.integers(2))}


if __name__ == "__main__":
    sys.exit(main())

"""Tries bad input on the commands, and prints what each says as a Markdown table.

    python tools/bad_input.py [--only WORD]

Each command must end with exit code 2 and one line that names what is wrong, without a traceback, and must
leave every file that was there as it was. Exit code 1 where one does not. The suite runs the quick ones.
"""

import argparse
import dataclasses
import gzip
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import zstandard

from icl.data.corpus_cache import MANIFEST, make_plan, prepare
from icl.data.tokenizer import ByteTokenizer

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL_RUN = "gin/runs/smoke.gin"


@dataclasses.dataclass(frozen=True)
class Case:
    """One wrong command.

    Attributes:
      tried: What is wrong, in words.
      arguments: After `python -m`; `{box}` is the folder that `make_files` and `make_runs` filled.
      says: Words that the error line must hold.
      needs_run: It reads a trained run, or can only be tried in a process of its own.
      file_bytes: Longest file that the process may write; 0 sets no limit.
    """

    tried: str
    arguments: tuple[str, ...]
    says: str
    needs_run: bool = False
    file_bytes: int = 0


def cases() -> list[Case]:
    """All of them."""
    return [
        *_flag_cases(),
        *_setting_cases(),
        *_file_cases(),
        *_corpus_cases(),
        *_table_cases(),
        *_workdir_cases(),
        *_host_cases(),
        *_eval_cases(),
        *_tool_cases(),
        *_prepare_cases(),
        *_plan_cases(),
        *_public_cases(),
    ]


def _train(*arguments: str, gin_file: str = SMALL_RUN, workdir: str = "{box}/new") -> tuple[str, ...]:
    return ("icl.train", "--workdir", workdir, "--gin_file", gin_file, *arguments)


def _bind(*bindings: str) -> tuple[str, ...]:
    return _train(*(part for binding in bindings for part in ("--gin_bindings", binding)))


def _eval(checkpoint: str, *bindings: str, output_dir: str = "{box}/new_eval") -> tuple[str, ...]:
    flags = ("icl.eval", "--checkpoint", "{box}/" + checkpoint, "--output_dir", output_dir)
    return (*flags, *(part for binding in bindings for part in ("--gin_bindings", binding)))


def _flag_cases() -> Iterator[Case]:
    yield Case("no --gin_file", ("icl.train", "--workdir", "{box}/new"), "--gin_file is missing")
    yield Case("no --workdir", ("icl.train", "--gin_file", SMALL_RUN), "--workdir is missing")
    yield Case("an unknown flag", _train("--stpes", "3"), "stpes")
    yield Case("an argument that is no flag", _train("TrainConfig.steps=3"), "unexpected argument")
    yield Case("a rung of a run without a ladder", _train("--rungs", "xs"), "rung 'xs'")
    yield Case("an unknown rung", _train("--rungs", "s,xl", gin_file="runs/quickstart.gin"), "rung 'xl'")
    yield Case("a gin file that does not exist", _train(gin_file="no/such.gin"), "no/such.gin")
    yield Case("a gin file that is a folder", _train(gin_file="{box}"), "is a folder")
    yield Case("a gin file that cannot be read", _train(gin_file="/proc/self/mem"), "/proc/self/mem")
    yield Case("a gin file of invalid UTF-8", _train(gin_file="{box}/bytes.gin"), "bytes.gin")
    yield Case("a gin file with a syntax error", _train(gin_file="{box}/syntax.gin"), "syntax.gin, line 2")
    yield Case("an include that does not exist", _train(gin_file="{box}/include.gin"), "include.gin, line 1")
    yield Case("a gin file that includes itself", _train(gin_file="{box}/circle.gin"), "includes itself")


def _setting_cases() -> Iterator[Case]:
    for tried, binding, says in (
        ("an unknown class", "TrainConfg.steps = 3", "did you mean 'TrainConfig'"),
        ("an unknown setting", "TrainConfig.step = 3", "did you mean 'steps'"),
        ("an unknown setting of a family", "Affine.prim = 7", "did you mean 'prime'"),
        ("an unknown scope", "xl/ModelConfig.embed_dim = 8", "xl/ModelConfig.embed_dim"),
        ("a binding without a value", "TrainConfig.steps", "TrainConfig.steps"),
        ("a macro that is not set", "TrainConfig.steps = %steps", "'%steps' is not set"),
        ("a string for a number", "TrainConfig.steps = '12'", "TrainConfig.steps = '12'"),
        ("a fraction for an integer", "TrainConfig.steps = 1.5", "expected an integer"),
        ("a number for a list", "Cipher.lengths = 3", "Cipher.lengths = 3"),
        ("NaN for the learning rate", "OptimizerConfig.learning_rate = nan", "nan"),
        ("infinity for the learning rate", "OptimizerConfig.learning_rate = 1e999", "learning_rate = inf"),
        ("a negative learning rate", "OptimizerConfig.learning_rate = -1e-3", "learning_rate = -0.001"),
        ("a negative number of steps", "TrainConfig.steps = -1", "TrainConfig.steps = -1"),
        ("a negative width", "ModelConfig.embed_dim = -32", "ModelConfig.embed_dim = -32"),
        ("heads that do not divide the width", "ModelConfig.num_heads = 5", "ModelConfig.num_heads = 5"),
        ("an unknown norm", "ModelConfig.norm = 'batch'", "'layer', 'rms'"),
        (
            "a vocabulary below the tokenizer's",
            "ModelConfig.vocab_size = 100",
            "ModelConfig.vocab_size = 100",
        ),
        ("a mesh that does not divide the devices", "MeshConfig.tensor = 3", "tensor"),
        ("a batch of no whole rows", "TrainConfig.batch_tokens = 1000", "TrainConfig.batch_tokens = 1000"),
        ("a warm-up longer than the run", "OptimizerConfig.warmup_steps = 999", "999"),
        ("an unknown family", "DataConfig.weights = {'ciper': 1}", "no task family 'ciper'"),
        ("a negative weight", "DataConfig.weights = {'cipher': -1}", "DataConfig.weights"),
        ("an empty mixture", "DataConfig.weights = {}", "DataConfig.weights"),
        ("rows too short for any episode", "DataConfig.row_length = 8", "row_length"),
        ("a modulus that is no prime", "Affine.prime = 12", "Affine.prime = 12"),
    ):
        yield Case(tried, _bind(binding), says)


def _file_cases() -> Iterator[Case]:
    for tried, path, says in (
        ("a glob that matches nothing", "none/*.json", "none/*.json"),
        ("a truncated JSON file", "truncated.json", "truncated.json"),
        ("a JSON file of invalid UTF-8", "bytes.json", "bytes.json"),
        ("a JSON file without outputs", "fields.json", "fields.json"),
        ("an empty JSONL file", "empty.jsonl", "empty.jsonl"),
        ("a gzip file that is none", "plain.json.gz", "plain.json.gz"),
        ("two tasks of one name", "twice/**/*.json", "name"),
        ("a JSONL line that was cut in half", "cut.jsonl", "cut.jsonl, line 3"),
        ("a JSONL line of invalid UTF-8", "bytes.jsonl", "bytes.jsonl, line 2"),
        ("a JSONL line that is no object", "list.jsonl", "list.jsonl, line 2"),
        ("a number for an output", "number.jsonl", "number.jsonl, line 2"),
        ("a right answer that is none of the choices", "gold.jsonl", "gold.jsonl, line 2"),
        ("choices without a right answer", "choices.jsonl", "choices.jsonl, line 2"),
        ("an output of several lines", "lines.jsonl", "lines.jsonl, line 2"),
        ("examples in two forms in one file", "forms.jsonl", "forms.jsonl, line 2"),
        ("a single example", "single.jsonl", "single.jsonl"),
        ("a gzip file that was cut", "cut.jsonl.gz", "cut.jsonl.gz"),
        ("a Zstandard file that was cut", "cut.jsonl.zst", "cut.jsonl.zst"),
        ("a task file in another format", "book.txt", "book.txt"),
    ):
        mixture = ("DataConfig.weights = {'files': 1}", f"FileTasks.glob = '{{box}}/{path}'")
        yield Case(tried, _bind(*mixture), says)
    good = ("DataConfig.weights = {'files': 1}", "FileTasks.glob = '{box}/tasks/*.json'")
    yield Case("a held-out task that no file has", _bind(*good, "FileTasks.held_out = ['absent']"), "absent")
    for tried, setting, says in (
        ("a tokenizer that does not exist", "DataConfig.tokenizer = '{box}/no.model'", "no.model"),
        ("a tokenizer that is a text file", "DataConfig.tokenizer = '{box}/book.txt'", "book.txt"),
        ("a corpus that does not exist", "DataConfig.corpora = {'book': ['{box}/no.txt']}", "no.txt"),
        (
            "a corpus of invalid UTF-8",
            "DataConfig.corpora = {'book': ['{box}/bytes.gin']}",
            "bytes.gin, line 1",
        ),
    ):
        yield Case(tried, _bind(setting), says)


def _corpus_cases() -> Iterator[Case]:
    for tried, source, says in (
        ("a corpus line that was cut in half", "cut_web.jsonl", "cut_web.jsonl, line 2"),
        ("a corpus line without text", "cut.jsonl", "cut.jsonl, line 1: no field 'text'"),
        ("a corpus field that no line has", "web.jsonl#body", "web.jsonl, line 1: no field 'body'"),
        ("a corpus whose text is a number", "web.jsonl#id", "web.jsonl, line 1: id = '1'"),
        ("a corpus of no text", "blank.txt", "hold no text"),
        ("a corpus folder without text files", "empty", "empty"),
        ("a cache made by another tokenizer", "cache_of_another", "another tokenizer"),
        ("a cache without its manifest", "cache_half", "cache_half"),
        ("a cache whose manifest was cut", "cache_cut", "manifest.json"),
        ("a cache with a shard that was cut", "cache_short", "00000.tokens"),
        ("a cache of an older format", "cache_old", "format 0"),
        ("a TFDS folder in TFRecord format", "tfds/records/1.0.0", "is a TFDS data set; write tfds:"),
    ):
        yield Case(tried, _bind(f"DataConfig.corpora = {{'text': ['{{box}}/{source}']}}"), says)
    for tried, source, says in (
        ("a TFDS name with a typo", "tfds:wiki40bb/en", "did you mean 'wiki40b'"),
        ("a TFDS configuration with a typo", "tfds:wiki40b/enn", "did you mean wiki40b/en"),
        ("a TFDS data set that is not prepared", "tfds:lm1b", "tfds build lm1b"),
        ("a TFDS name without a name", "tfds:[train]", "expected tfds:NAME"),
        ("a TFDS data set in TFRecord format", "tfds:{box}/tfds/records/1.0.0", "is in TFRecord format"),
        ("a TFDS folder that holds none", "tfds:{box}/empty", "empty"),
    ):
        yield Case(tried, _bind(f"DataConfig.corpora = {{'text': ['{source}']}}"), says)
    corpus = "DataConfig.corpora = {'text': ['{box}/book.txt']}"
    for tried, binding, says in (
        ("a corpus named as a task", "DataConfig.corpora = {'cipher': ['{box}/book.txt']}", "also a task"),
        ("weights of another corpus", "DataConfig.corpus_weights = {'txet': 1}", "corpus_weights"),
        ("a corpus that leaves no room", "DataConfig.corpus_share = 1.0", "corpus_share"),
        ("a curriculum of an unknown family", "DataConfig.curriculum = {100: {'ciper': 1}}", "'ciper'"),
        ("a curriculum that leaves nothing", "DataConfig.curriculum = {100: {'cipher': 0}}", "curriculum"),
        ("a negative temperature", "DataConfig.temperature = -1", "temperature"),
        ("excluded examples that do not exist", "DataConfig.exclude = ['{box}/no.jsonl']", "no.jsonl"),
        ("an excluded task without end", "DataConfig.exclude = ['cipher']", "without end"),
    ):
        yield Case(tried, _bind("DataConfig.weights = {'cipher': 1}", corpus, binding), says)
    cache = "DataConfig.corpora = {'text': ['{box}/cache']}"
    yield Case(
        "a cache that was not filtered",
        _bind(cache, "DataConfig.exclude = ['{box}/long.jsonl']"),
        "--exclude",
    )


def _table_cases() -> Iterator[Case]:
    """Pair lists, TFDS tasks and the battery."""
    for tried, family, bindings, says in (
        (
            "a pair list line of one column",
            "pairs",
            ("PairTasks.glob = '{box}/pairs.tsv'",),
            "tsv, line 3",
        ),
        ("an empty pair list", "pairs", ("PairTasks.glob = '{box}/blank.txt'",), "blank.txt"),
        ("a pair list that does not exist", "pairs", ("PairTasks.glob = '{box}/no.tsv'",), "no.tsv"),
        (
            "a pair list form without a column",
            "pairs",
            ("PairTasks.glob = '{box}/pairs.tsv'", "PairTasks.output = 'x'"),
            "PairTasks.output",
        ),
        ("a TFDS task with a typo", "tfds", ("TfdsTasks.names = ['hellaswga']",), "did you mean 'hellaswag'"),
        ("a TFDS task that is not prepared", "tfds", ("TfdsTasks.names = ['piqa']",), "tfds build piqa"),
        ("no TFDS tasks", "tfds", ("TfdsTasks.names = []",), "TfdsTasks.names = ()"),
        ("an unknown scramble", "scrambles", ("Scrambles.tasks = ['anagrams']",), "'anagrams'"),
        ("a word list that does not exist", "scrambles", ("Scrambles.words = '{box}/no.txt'",), "no.txt"),
        ("a word list of short words", "scrambles", ("Scrambles.words = '{box}/short.txt'",), "short.txt"),
        (
            "digits that are no number",
            "arithmetic",
            ("Arithmetic.tasks = ['some_digit_addition']",),
            "some_digit",
        ),
    ):
        weights = f"DataConfig.weights = {{'{family}': 1}}"
        yield Case(tried, _bind(weights, *bindings), says)


def _prepare_cases() -> Iterator[Case]:
    def tool(*arguments: str, output: str = "{box}/new") -> tuple[str, ...]:
        return ("tools.prepare_corpus", "--output", output, "--num_processes", "1", *arguments)

    def source(name: str) -> tuple[str, ...]:
        return ("--source", f"{{box}}/{name}")

    for tried, arguments, says in (
        ("a source that does not exist", tool(*source("no.txt")), "no.txt"),
        ("a source of invalid UTF-8", tool(*source("bytes.gin")), "bytes.gin, line 1"),
        ("a line that was cut in half", tool(*source("cut_web.jsonl")), "cut_web.jsonl, line 2"),
        ("a source that was cut", tool(*source("cut.jsonl.gz")), "cut.jsonl.gz"),
        ("sources of no text", tool(*source("blank.txt")), "hold no text"),
        ("an output that is a file", tool(*source("book.txt"), output="{box}/book.txt"), "book.txt"),
        ("an output that holds other files", tool(*source("book.txt"), output="{box}/foreign"), "foreign"),
        ("the cache of another source", tool(*source("web.jsonl"), output="{box}/cache"), "another"),
        ("a tokenizer that is none", tool(*source("book.txt"), "--tokenizer", "{box}/book.txt"), "book.txt"),
        (
            "excluded examples that are none",
            tool(*source("book.txt"), "--exclude", "{box}/book.txt"),
            "book.txt",
        ),
        ("a TFDS split with a typo", tool("--source", "tfds:wiki40b/en[tran"), "tfds:"),
    ):
        yield Case(f"prepare_corpus: {tried}", arguments, says)
    no_workers = (
        "tools.prepare_corpus",
        "--output",
        "{box}/new",
        "--num_processes",
        "0",
        *source("book.txt"),
    )
    yield Case("prepare_corpus: no processes", no_workers, "--num_processes = 0")
    yield Case(
        "prepare_corpus: a full disk", tool(*source("book.txt")), "File too large", True, file_bytes=500
    )


def _workdir_cases() -> Iterator[Case]:
    yield Case("a workdir that is a URL", _train(workdir="gs://bucket/run"), "mounted file system")
    yield Case("a workdir that is a file", _train(workdir="{box}/book.txt"), "book.txt")
    yield Case("a workdir inside a file", _train(workdir="{box}/book.txt/run"), "book.txt")
    yield Case("a workdir with files of something else", _train(workdir="{box}/foreign"), "foreign")
    for tried, workdir, says in (
        ("a workdir of another model", "run", "ModelConfig"),
        ("a flipped bit in the checkpoint to resume", "flipped", "damaged"),
        ("a truncated run.json", "truncated", "run.json"),
    ):
        bindings = _OTHER_MODEL if workdir == "run" else _RUN
        yield Case(tried, _train(*bindings, workdir="{box}/" + workdir), says, needs_run=True)
    for kilobytes, full in ((1, "settings"), (20, "checkpoint")):
        tried = f"a file size limit that the {full} meets"
        yield Case(tried, _train(*_RUN), "File too large", needs_run=True, file_bytes=1024 * kilobytes)


def _eval_cases() -> Iterator[Case]:
    yield Case(
        "no --checkpoint", ("icl.eval", "--output_dir", "{box}/new_eval"), "--checkpoint", needs_run=True
    )
    yield Case("no --output_dir", ("icl.eval", "--checkpoint", "{box}/run"), "--output_dir", needs_run=True)
    for tried, checkpoint, bindings, says in (
        ("a checkpoint that does not exist", "nowhere", (), "nowhere"),
        ("an empty checkpoint folder", "empty", (), "empty"),
        ("a checkpoint that is a file", "book.txt", (), "book.txt"),
        ("a step that is not there", "run/checkpoints/999", (), "999"),
        ("a flipped bit in the parameters", "flipped", (), "damaged"),
        ("a checkpoint with the parameters of another model", "other_model", (), "step 4"),
        ("a checkpoint without its description", "no_description", (), "no_description"),
        ("a truncated description", "bad_description", (), "bad_description"),
        ("a checkpoint whose task files are gone", "moved", (), "gone"),
        ("more demonstrations than the task has", "run", ("EvalConfig.ks = (0, 500)",), "500"),
        ("numbers of demonstrations out of order", "run", ("EvalConfig.ks = (4, 1)",), "EvalConfig.ks"),
        ("an unknown task", "run", ("EvalConfig.tasks = ['chess']",), "chess"),
        ("no seeds", "run", ("EvalConfig.seeds = 0",), "EvalConfig.seeds = 0"),
        ("a string for the number of queries", "run", ("EvalConfig.queries = 'all'",), "EvalConfig.queries"),
        ("an unknown condition", "run", ("EvalConfig.conditions = ['swapped']",), "EvalConfig.conditions"),
        ("an unknown format", "run", ("EvalConfig.templates = ['haiku']",), "no format 'haiku'"),
        ("a format twice", "run", ("EvalConfig.templates = ['arrow', 'arrow']",), "each once"),
        ("an unknown rule for options", "run", ("EvalConfig.option_rules = ['pmi']",), "option_rules"),
        ("no order of demonstrations", "run", ("EvalConfig.orders = 0",), "EvalConfig.orders = 0"),
        ("a beam of no width", "run", ("EvalConfig.beam_width = 0",), "EvalConfig.beam_width = 0"),
        (
            "a temperature with a beam",
            "run",
            ("EvalConfig.beam_width = 4", "EvalConfig.temperature = 0.7"),
            "EvalConfig.temperature = 0.7",
        ),
        ("a length rule of another tool", "run", ("EvalConfig.length_rule = 'mt'",), "'gnmt', 'hf'"),
        (
            "labels without meaning for a task without labels",
            "run",
            ("EvalConfig.conditions = ['abstract_labels']",),
            "has no set of labels",
        ),
        ("settings of no task", "run", ("EvalConfig.per_task = {'chess': {'ks': (0,)}}",), "'chess'"),
        (
            "a setting that single tasks cannot have",
            "run",
            ("EvalConfig.per_task = {'cipher': {'split': 'train'}}",),
            "no setting 'split'",
        ),
        (
            "a wrong value for a single task",
            "run",
            ("EvalConfig.per_task = {'cipher': {'ks': (2, 1)}}",),
            "per_task['cipher']",
        ),
        ("a mesh of more devices than there are", "run", ("MeshConfig.fsdp = 64",), "64"),
        ("an unknown setting of a family at evaluation", "run", ("FileTasks.glb = 'x'",), "glb"),
    ):
        yield Case(tried, _eval(checkpoint, *bindings), says, needs_run=True)
    yield Case("an output folder that is a file", _eval("run", output_dir="{box}/book.txt"), "book.txt", True)


def _tool_cases() -> Iterator[Case]:
    tool = ("tools.train_tokenizer", "--output", "{box}/new.model")
    yield Case("tokenizer: an input that does not exist", (*tool, "{box}/no.txt"), "no.txt", needs_run=True)
    yield Case(
        "tokenizer: an output that exists", (*tool[:2], "{box}/book.txt", "{box}/book.txt"), "book.txt", True
    )
    too_many = (*tool, "--vocab_size", "1000000", "{box}/book.txt")
    yield Case("tokenizer: more tokens than the text has", too_many, "1000000", needs_run=True)


def _public_cases() -> Iterator[Case]:
    command = "icl.interop.huggingface.__main__"
    tool = (command, "import")
    yield Case("import: no such folder", (*tool, "{box}/no", "--workdir", "{box}/new"), "does not exist")
    yield Case("import: a run's folder", (*tool, "{box}/run", "--workdir", "{box}/new"), "config.json", True)
    export = (command, "export", "{box}/run", "{box}/new")
    yield Case("export: an unknown architecture", (*export, "--architecture", "opt"), "'opt'", True)
    public = ("icl.eval", "--checkpoint", "hf:{box}", "--output_dir", "{box}/new")
    yield Case("eval: a folder without config.json", public, "config.json", needs_run=True)


def _host_cases() -> Iterator[Case]:
    """Of several hosts, what can be known to be wrong before any other is met."""
    address = ("--coordinator", "localhost:1234")
    for tried, arguments, says in (
        ("no --host", (*address, "--num_hosts", "2"), "--host is missing"),
        ("no --coordinator", ("--num_hosts", "2", "--host", "0"), "--coordinator is missing"),
        ("no port", ("--coordinator", "localhost", "--num_hosts", "2", "--host", "0"), "HOST:PORT"),
        ("one too far", (*address, "--num_hosts", "2", "--host", "2"), "--host 2"),
        ("none at all", (*address, "--num_hosts", "0", "--host", "0"), "--num_hosts 0"),
    ):
        yield Case(f"several hosts: {tried}", _train(*arguments), says)


def _plan_cases() -> Iterator[Case]:
    """Each in a process of its own, as JAX reads what it simulates when it is loaded."""
    devices = ("--topology", "gpu:h100x8")

    def plan(*arguments: str) -> tuple[str, ...]:
        return ("icl.plan", "--gin_file", SMALL_RUN, *arguments)

    for tried, arguments, says in (
        ("no --gin_file", ("icl.plan", *devices), "--gin_file is missing"),
        ("no --topology", plan(), "--topology is missing"),
        ("a topology of no known form", plan("--topology", "v5p"), "--topology 'v5p'"),
        ("an unknown chip", plan("--topology", "v9:2x2"), "unknown chip 'v9'"),
        ("a slice with a side too few", plan("--topology", "v5p:8x8"), "three sides"),
        ("no devices", plan("--topology", "cpu:0"), "1 to 100,000 devices"),
        ("a mesh of other devices", plan(*devices, "--gin_bindings", "MeshConfig.fsdp = 3"), "fsdp=3"),
        ("prompts that do not divide", plan(*devices, "--eval_rows", "3"), "--eval_rows = 3"),
        ("no prompts", plan(*devices, "--eval_rows", "0"), "eval_rows"),
        ("a search for evaluations", plan(*devices, "--search", "--eval"), "--search"),
        ("an unknown rung", plan(*devices, "--rungs", "xs"), "rung 'xs'"),
        ("a gin file that does not exist", ("icl.plan", *devices, "--gin_file", "no.gin"), "no.gin"),
        ("JSON into no folder", plan(*devices, "--json", "{box}/no/plan.json"), "no/plan.json"),
        ("JSON into a folder", plan(*devices, "--json", "{box}/empty"), "empty"),
    ):
        yield Case(f"plan: {tried}", arguments, says, needs_run=True)


_RUN = tuple(
    part
    for binding in (
        "TrainConfig.steps = 4",
        "TrainConfig.save_every = 2",
        "TrainConfig.eval_every = 0",
        "OptimizerConfig.warmup_steps = 1",
        "DataConfig.weights = {'cipher': 1, 'files': 1}",
        "FileTasks.glob = '{box}/tasks/*.json'",
    )
    for part in ("--gin_bindings", binding)
)
_OTHER_MODEL = (*_RUN, "--gin_bindings", "ModelConfig.embed_dim = 64")


def make_files(box: Path) -> None:
    """The files that commands without a trained run are given."""
    examples = [{"input": f"word {n}", "output": f"drow {n}"} for n in range(60)]
    for name in ("tasks/reverse.json", "twice/a/same.json", "twice/b/same.json"):
        (box / name).parent.mkdir(parents=True)
        (box / name).write_text(json.dumps(examples))
    (box / "bytes.gin").write_bytes(b"TrainConfig.steps = 3 # \xff\xfe\n")
    (box / "syntax.gin").write_text("TrainConfig.steps = 3\nTrainConfig.seed = = 4\n")
    (box / "include.gin").write_text("include 'no/such.gin'\n")
    (box / "circle.gin").write_text("include 'circle.gin'\n")
    (box / "truncated.json").write_text(json.dumps(examples)[:500])
    (box / "bytes.json").write_bytes(b'[{"input": "\xff", "output": "a"}]')
    (box / "fields.json").write_text('[{"input": "a", "answer": "b"}]')
    (box / "empty.jsonl").write_text("")
    (box / "plain.json.gz").write_text(json.dumps(examples))
    (box / "book.txt").write_text("It was the best of times, it was the worst of times.\n" * 40)
    (box / "empty").mkdir()
    _make_task_files(box, examples)
    _make_corpora(box)
    (box / "foreign").mkdir()
    (box / "foreign" / "metrics.jsonl").write_text('{"step": 1}\n')


def _make_task_files(box: Path, examples: list[dict[str, str]]) -> None:
    good = '{"input": "one", "output": "eno"}\n'
    choices = '{"query": "is 1 odd?", "choices": ["no", "yes"], "gold": 1}\n'
    for name, text in (
        ("cut", 2 * good + '{"input": "two", "outp'),
        ("list", good + "[1, 2]\n"),
        ("number", good + '{"input": "two", "output": 2}\n'),
        ("gold", choices + choices.replace('"gold": 1', '"gold": 2')),
        ("choices", choices + '{"query": "is 1 odd?", "choices": ["no", "yes"]}\n'),
        ("lines", good + '{"input": "two", "output": "o\\nwt"}\n'),
        ("forms", good + '{"prompt": "two ->", "completion": " owt"}\n'),
        ("single", good),
        ("long", json.dumps({"context": "word " * 20, "completion": " end"}) + "\n"),
    ):
        (box / f"{name}.jsonl").write_text(text)
    (box / "bytes.jsonl").write_bytes(good.encode() + b'{"input": "\xff", "output": "a"}\n')
    lines = "\n".join(map(json.dumps, examples)).encode()
    (box / "cut.jsonl.gz").write_bytes(gzip.compress(lines)[:-20])
    (box / "cut.jsonl.zst").write_bytes(zstandard.compress(lines)[:-20])
    (box / "pairs.tsv").write_text("one\teins\ntwo\tzwei\nthree\nfour\tvier\n")
    (box / "short.txt").write_text("one\ntwo\n")


def _make_corpora(box: Path) -> None:
    """Text, JSONL, caches good and damaged, and a TFDS data set in the format that cannot be read."""
    (box / "blank.txt").write_text("")
    (box / "web.jsonl").write_text('{"id": 1, "text": "some text"}\n' * 9)
    (box / "cut_web.jsonl").write_text('{"text": "some text"}\n{"text": "some')
    prepare(make_plan([str(box / "book.txt")], ByteTokenizer()), box / "cache")
    for name in ("half", "cut", "short", "old", "of_another"):
        shutil.copytree(box / "cache", box / f"cache_{name}")
    (box / "cache_half" / MANIFEST).unlink()
    manifest = (box / "cache" / MANIFEST).read_text()
    (box / "cache_cut" / MANIFEST).write_text(manifest[:200])
    (box / "cache_old" / MANIFEST).write_text(manifest.replace('"format": 1', '"format": 0'))
    fingerprint = json.loads(manifest)["tokenizer_fingerprint"]
    (box / "cache_of_another" / MANIFEST).write_text(manifest.replace(fingerprint, "0" * 32))
    shard = box / "cache_short" / "shards" / "00000.tokens"
    shard.write_bytes(shard.read_bytes()[:-2])
    records = box / "tfds" / "records" / "1.0.0"
    records.mkdir(parents=True)
    text = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}
    feature = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    features = {"pythonClassName": feature, "featuresDict": {"features": {"text": text}}}
    (records / "features.json").write_text(json.dumps(features))
    splits = [{"name": "train", "numBytes": "9", "shardLengths": ["1"]}]
    info = {"name": "records", "version": "1.0.0", "fileFormat": "tfrecord", "splits": splits}
    (records / "dataset_info.json").write_text(json.dumps(info))


def make_runs(box: Path) -> None:
    """A trained run, and damaged copies of it."""
    shutil.copytree(box / "tasks", box / "gone")
    glob = ("--gin_bindings", "FileTasks.glob = '{box}/gone/*.json'")
    for name, bindings in (("run", _RUN), ("moved", (*_OTHER_MODEL, *glob))):
        done = _run(Case("", _train(*bindings, workdir="{box}/" + name), ""), box)
        if done.returncode:
            sys.exit(f"the run to be damaged did not train: {done.stderr}")
    shutil.rmtree(box / "gone")
    for name in ("flipped", "truncated", "other_model", "no_description", "bad_description"):
        shutil.copytree(box / "run", box / name)
    _flip_a_bit(box / "flipped")
    (box / "truncated" / "run.json").write_text((box / "run" / "run.json").read_text()[:200])
    for step in (box / "other_model" / "checkpoints").iterdir():
        shutil.rmtree(step / "params")
        shutil.copytree(box / "moved" / "checkpoints" / step.name / "params", step / "params")
    for description in (box / "no_description").glob("checkpoints/*/description"):
        shutil.rmtree(description)
    for path in (box / "bad_description").glob("checkpoints/*/description/metadata"):
        path.write_text(path.read_text()[:1000])


def _flip_a_bit(run: Path) -> None:
    """In the largest file of the parameters of every step, which holds array data."""
    for params in run.glob("checkpoints/*/params"):
        path = max((p for p in params.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def _run(case: Case, box: Path) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if case.file_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.file_bytes, case.file_bytes))

    command = [sys.executable, "-m", *(part.replace("{box}", str(box)) for part in case.arguments)]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, preexec_fn=limit, check=False
    )


def snapshot(box: Path) -> dict[Path, str]:
    """Every file of a folder with the hash of its content."""
    return {
        path.relative_to(box): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(box.rglob("*"))
        if path.is_file()
    }


def error_line(stderr: str, box: Path) -> str:
    """The last line of stderr, without the name of the folder."""
    lines = stderr.strip().splitlines() or [""]
    return lines[-1].replace(str(box), "BOX")


def main() -> int:
    """Tries all cases; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="try only those whose description holds this")
    only = parser.parse_args().only
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        box = Path(folder)
        make_files(box)
        make_runs(box)
        before = snapshot(box)
        print("| | tried | printed | exit code | traceback | changed |\n|---|---|---|---|---|---|")
        for number, case in enumerate((case for case in cases() if only in case.tried), 1):
            done = _run(case, box)
            line = error_line(done.stderr, box)
            traceback = "Traceback" in done.stdout + done.stderr
            after = snapshot(box)
            left = () if case.file_bytes else after.keys() - before.keys()
            changed = [str(path) for path in (*before, *left) if after.get(path) != before.get(path)]
            good = done.returncode == 2 and not traceback and not changed and case.says in line
            failures += not good
            cells = (
                number,
                case.tried,
                f"`{line}`",
                done.returncode,
                "yes" if traceback else "no",
                ", ".join(changed),
            )
            print(
                "| " + " | ".join(str(cell).replace("|", "\\|") or "no" for cell in cells) + " |", flush=True
            )
            for new in ("new", "new_eval"):
                shutil.rmtree(box / new, ignore_errors=True)
    print(f"\n{failures} of these failed" if failures else "\nall as they should be")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

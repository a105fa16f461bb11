"""Trains language models on packed multi-task sequences and measures their in-context learning.

How well does a frozen model do a task from an instruction and K demonstrations in its context, as a function
of K and of the model's size? After Fig. 1.2 of "Language Models are Few-Shot Learners" (arXiv 2005.14165).

## Train, evaluate, plan

```bash
python -m icl.train --workdir runs/mine --gin_file runs/smoke.gin
python -m icl.eval --checkpoint runs/mine --output_dir runs/mine/eval \\
    --gin_file eval/quickstart.gin
python -m icl.plan --gin_file runs/smoke.gin --topology gpu:h100x8
```

`icl.train` trains a model, or a ladder of sizes, and resumes where it was stopped. `icl.eval` reads
checkpoints and writes `results.jsonl`, a record of every query, and `report.html`. `icl.plan` says whether a
run fits on devices that are not there. A gin file is a path, or a name in the package's own `gin/`; each
setting is a field of a class, and `--gin_bindings 'TrainConfig.steps = 500'` wins over the files. `--dry_run`
says what would be done, `--help` what there is. Bad input is one line on stderr and exit code 2.

## The same in Python

```python
from pathlib import Path

from icl.config import load_eval, load_runs
from icl.evaluation.runner import evaluate
from icl.training import train

(run,) = load_runs(["runs/smoke.gin"], ["TrainConfig.steps = 500"])
train(run, Path("runs/mine"))
evaluation = load_eval(["eval/quickstart.gin"])
evaluate(["runs/mine"], evaluation.config, Path("runs/mine/eval"))
```

Settings are frozen dataclasses, so gin is not needed: `icl.training.config.RunConfig` holds those of a run,
`icl.evaluation.config.EvalConfig` those of an evaluation. What is wrong raises `icl.errors.InputError`.

## Weights of other software

```bash
python -m icl.eval --checkpoint hf:pythia-70m --output_dir runs/pythia \\
    --gin_file eval/k_curve.gin
python -m icl.interop.huggingface import pythia-70m --workdir runs/pythia-70m
python -m icl.interop.huggingface export runs/mine mine_hf
python -m icl.interop.lm_eval --model_args checkpoint=runs/mine --tasks lambada_openai
```

`hf:` before a path takes a Hugging Face folder (GPT-2, GPT-NeoX and Llama shapes) where a run's folder is
expected. `icl.interop.lm_eval` takes the flags of the evaluation harness (extra `harness`).

## Where things are

| package | holds |
|---|---|
| `icl.tasks` | what a task is; the families; files, pairs, TFDS; what must not be trained on |
| `icl.data` | tokenizers, corpora, mixtures, packed rows, the host loader |
| `icl.model` | the transformer, attention and its kernels, KV cache, decoding |
| `icl.parallel` | device mesh, sharding rules, several hosts |
| `icl.training` | optimizer, loss, step, loop, checkpoints, metrics |
| `icl.functions` | prompts of real numbers, a transformer over them, what it is held against |
| `icl.evaluation` | prompts, scoring, metrics, statistics, contamination, report |
| `icl.planner` | what a step needs of devices that are not there |
| `icl.interop` | models and weights of other software |

Shapes are written `[batch, length, embed]` in text, and as suffixes in names: `x_BTD`.
"""

__version__ = "0.1.0"

#!/usr/bin/env bash
# A short part of the suite, a run and an evaluation under Python 3.12 with the newest JAX; where python3.12 runs.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if ! python3.12 -c '' 2>/dev/null; then
  echo "error: no python3.12 here: the newest JAX is not tested" >&2
  exit 2
fi
unset TPU_LIBRARY_PATH
ICL_VENV=$root/.venv312 PYTHON=python3.12
source "$root/tools/environment.sh"
cd "$ROOT"
prepare_environment
"$ICL_VENV/bin/python" -c 'import jax, sys; print("== Python", sys.version.split()[0], "JAX", jax.__version__)'
"$ICL_VENV/bin/python" -m pytest -m "not slow" tests/test_*.py tests/tasks tests/data tests/model/test_cache.py \
  tests/training/test_checkpoints.py tests/training/test_optimizer.py
workdir=$(mktemp -d)
trap 'rm -rf "$workdir"' EXIT
"$ICL_VENV/bin/python" -m icl.train --workdir "$workdir" --gin_file gin/runs/smoke.gin
"$ICL_VENV/bin/python" -m icl.eval --checkpoint "$workdir" --output_dir "$workdir/eval" \
  --gin_file gin/eval/quickstart.gin --gin_bindings 'EvalConfig.queries = 4' --gin_bindings 'EvalConfig.ks = (0, 1)'

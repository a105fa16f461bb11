#!/usr/bin/env bash
# Lints, type-checks and tests, in an environment that it makes if there is none.
#
#   bash tools/test.sh [PYTEST ARGUMENT ...]     for instance: -k packing, or tests/data
#
# Paths among the arguments start at the repository. ICL_VENV and PYTHON: see tools/environment.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$ROOT"

# step NAME COMMAND ...: runs a command and says how long it took.
step() {
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  "$@"
  echo "== $name: $((SECONDS - start)) s"
}

step environment prepare_environment "$ROOT/constraints.txt"
bin=$ICL_VENV/bin
step "ruff check" "$bin/ruff" check .
step "ruff format" "$bin/ruff" format --check .
step mypy "$bin/mypy"
step pytest "$bin/python" -m pytest -n 2 --dist worksteal "$@"
echo "== all of it: $SECONDS s"

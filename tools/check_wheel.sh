#!/usr/bin/env bash
# Builds a wheel from the tree, installs it with its dependencies into an empty environment, and uses it from
# an empty folder: train, evaluate, types, bad input. Needs a network; takes some minutes and 1.5 GB for a while.
#
#   bash tools/check_wheel.sh [--newest] [--keep DIR]
#
#   --newest     the newest dependencies; by default those of constraints.txt, where Python is 3.11
#   --keep DIR   work in that folder, which must not exist yet, and leave it there
#
# PYTHON is the interpreter that the wheel is tried with; ICL_VENV has what builds it: see tools/environment.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# wrong WHAT: says what is wrong, and ends.
wrong() {
  echo "error: $1" >&2
  exit 2
}

newest='' work=''
while (($#)); do
  case $1 in
    --newest) newest=yes ;;
    --keep) (($# > 1)) || wrong "--keep needs a value (see --help)"; work=$2; shift ;;
    --help | -h) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit ;;
    *) wrong "unknown argument '$1' (see --help)" ;;
  esac
  shift
done
[[ ! -e $work ]] || wrong "--keep $work is there: expected a new folder"

python=$(find_python)
prepare_environment "$ROOT/constraints.txt"
if [[ $work ]]; then mkdir -p "$work"; else work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT; fi
work=$(cd "$work" && pwd)
unset PYTHONPATH
total=$SECONDS

# step NAME COMMAND ...: runs a command and says how long it took.
step() {
  local name=$1 start=$SECONDS
  shift
  "$@"
  echo "== $name: $((SECONDS - start)) s"
}

# logged LOG COMMAND ...: runs a command and keeps what it says, which is shown only where it fails.
logged() {
  local log=$work/$1.log
  shift
  "$@" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
}

build() {
  (cd "$ROOT" && "$ICL_VENV/bin/python" -m hatchling build -t wheel -d "$work/dist" >/dev/null 2>&1)
  basename "$work"/dist/*.whl
}

install() {
  local constraints=()
  if [[ ! $newest ]] && "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    constraints=(-c "$ROOT/constraints.txt")
  fi
  "$python" -m venv "$work/venv"
  "$work/venv/bin/python" -m pip install -qq --disable-pip-version-check "${constraints[@]}" "$work"/dist/*.whl
}

train() {
  logged train "$work/venv/bin/python" -m icl.train --workdir smoke --gin_file gin/runs/smoke.gin
  tail -n 1 "$work/train.log"
}

evaluate() {
  logged eval "$work/venv/bin/python" -m icl.eval --checkpoint smoke --output_dir smoke/eval \
    --gin_file eval/quickstart.gin --gin_bindings 'EvalConfig.queries = 4' --gin_bindings 'EvalConfig.ks = (0, 1)'
  [[ -s smoke/eval/results.jsonl && -s smoke/eval/report.html ]]
  echo "$(wc -l <smoke/eval/results.jsonl) results"
}

version() {
  local found wanted
  found=$("$work/venv/bin/python" -c \
    'import importlib.metadata as m, icl; print(icl.__version__, m.version("icl"), icl.__file__)')
  wanted=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$ROOT/icl/__init__.py")
  echo "$found"
  [[ $found == "$wanted $wanted $work/venv/"* ]] || wrong "expected version $wanted, twice, from $work/venv"
}

# types: a client is checked against the annotations of the installed package, and a wrong one is refused.
types() {
  local check=("$ICL_VENV/bin/mypy" --python-executable "$work/venv/bin/python" --cache-dir "$work/mypy" --strict)
  printf '%s\n' 'from icl.config import load_runs' 'from icl.training import train' \
    'ended: bool = train(load_runs(["runs/smoke.gin"])[0], "runs/mine")' >"$work/client.py"
  sed 's/: bool/: str/' "$work/client.py" >"$work/wrong_client.py"
  "${check[@]}" "$work/client.py"
  if "${check[@]}" "$work/wrong_client.py" >"$work/mypy.log"; then wrong "mypy sees no types of the wheel"; fi
  grep 'Incompatible types in assignment' "$work/mypy.log" | sed 's/.*error: /refused: /'
}

bad_input() {
  local code=0
  "$work/venv/bin/python" -m icl.train --workdir bad --gin_file runs/smoky.gin 2>"$work/bad.log" || code=$?
  cat "$work/bad.log"
  ((code == 2)) || wrong "bad input: exit code $code, expected 2"
  (($(wc -l <"$work/bad.log") == 1)) || wrong "bad input: expected one line"
  [[ ! -e bad ]] || wrong "bad input: a folder was made"
}

mkdir "$work/empty"
cd "$work/empty"
step "build" build
step "install with $("$python" --version)" install
"$work/venv/bin/python" -m pip list --format freeze | grep -E '^(jax|flax|numpy|orbax-checkpoint)==' | xargs
step "version" version
step "train" train
step "evaluate" evaluate
step "types" types
step "bad input" bad_input
echo "== all of it: $((SECONDS - total)) s"

#!/usr/bin/env bash
# From nothing to K-curves: makes the environment, trains three rungs, evaluates them, prints the table and
# the path of the report. Run again, it goes on where it stopped.
#
#   bash tools/quickstart.sh [--workdir DIR] [--seed N]
#
#   --workdir DIR   folder for everything it writes (default: runs/quickstart)
#   --seed N        seed of the parameters and of the training rows (default: 0)
#
# ICL_VENV and PYTHON choose the environment: see tools/environment.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
}

# wrong WHAT: says what is wrong with the arguments, and ends.
wrong() {
  echo "error: $1 (see --help)" >&2
  exit 2
}

workdir=$ROOT/runs/quickstart seed=0
while (($#)); do
  case $1 in
    --workdir | --seed) (($# > 1)) || wrong "$1 needs a value" ;;
    --help | -h) usage && exit ;;
    *) wrong "unknown argument '$1'" ;;
  esac
  if [[ $1 == --seed ]]; then seed=$2; else workdir=$2; fi
  shift 2
done
[[ $seed =~ ^[0-9]+$ ]] || wrong "--seed $seed: expected a whole number"
[[ ! -e $workdir || -d $workdir ]] || wrong "--workdir $workdir is a file: expected a folder"

prepare_environment "$ROOT/constraints.txt"
mkdir -p "$workdir"
workdir=$(cd "$workdir" && pwd)
cd "$ROOT"
python=$ICL_VENV/bin/python
start=$SECONDS

# train RUNG: trains one rung of the ladder; the rungs resume by themselves when this script is run again.
train() {
  exec "$python" -m icl.train --workdir "$workdir" --gin_file gin/runs/quickstart.gin --rungs "$1" \
    --gin_bindings "TrainConfig.seed = $seed" --gin_bindings "DataConfig.seed = $seed"
}

# The small rungs gain little from a second core, so they share two; the large one has both to itself.
echo "== training the rungs xs and s, then m, into $workdir"
one_core=--xla_cpu_multi_thread_eigen=false
XLA_FLAGS="${XLA_FLAGS:-} $one_core" train xs >"$workdir/xs.log" 2>&1 &
small=$!
trap 'exit 130' INT TERM
trap 'kill $small 2>/dev/null || true; wait || true' EXIT
(XLA_FLAGS="${XLA_FLAGS:-} $one_core" train s)
if ! wait $small; then
  tail -n 5 "$workdir/xs.log" >&2
  exit 2
fi
trap - INT TERM EXIT
(train m)
echo "== trained after $((SECONDS - start)) s; evaluating"
"$python" -m icl.eval --checkpoint "$workdir/xs" --checkpoint "$workdir/s" --checkpoint "$workdir/m" \
  --output_dir "$workdir/eval" --gin_file gin/eval/quickstart.gin
echo "== done after $((SECONDS - start)) s"

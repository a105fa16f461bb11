# Sourced by the other scripts: makes a virtual environment, once, and says so.
#
#   ICL_VENV   its folder (default: .venv in the repository)
#   PYTHON     the interpreter that makes it (default: the first of python3, python3.13, 3.12, 3.11 that
#              runs and is 3.11 or newer)

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ICL_VENV=${ICL_VENV:-$ROOT/.venv}

# runs PYTHON: whether that interpreter exists, runs, and is new enough.
runs() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if runs "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.11 or newer among: ${PYTHON:-python3 python3.13 python3.12 python3.11};" \
    "set PYTHON to one" >&2
  return 1
}

# prepare_environment [CONSTRAINTS]: makes $ICL_VENV and installs the package in it, editable, unless that
# was done before for the same settings. Needs a network only when it installs.
prepare_environment() {
  local constraints=${1:-} python stamp wanted
  stamp=$ICL_VENV/installed-for
  wanted=$(echo "$ROOT" | cat - "$ROOT/pyproject.toml" ${constraints:+"$constraints"} | cksum)
  if [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && runs "$ICL_VENV/bin/python"; then
    return
  fi
  if ! runs "$ICL_VENV/bin/python"; then
    python=$(find_python)
    echo "== making $ICL_VENV with $("$python" --version)"
    "$python" -m venv "$ICL_VENV"
  fi
  echo "== installing packages in $ICL_VENV (about 1.5 GB, a few minutes the first time)"
  # uv resolves and unpacks several times faster; where it cannot be had or fails, pip does the same.
  if ! { "$ICL_VENV/bin/python" -m pip install -qq --disable-pip-version-check uv &&
    "$ICL_VENV/bin/uv" pip install -q --python "$ICL_VENV/bin/python" \
      ${constraints:+-c "$constraints"} -e "$ROOT[dev]"; }; then
    "$ICL_VENV/bin/python" -m pip install -qq --disable-pip-version-check \
      ${constraints:+-c "$constraints"} -e "$ROOT[dev]"
  fi
  echo "$wanted" >"$stamp"
}

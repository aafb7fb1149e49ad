#!/usr/bin/env bash
# Create .venv from Python 3.10 or 3.11 and the locked requirements (make setup). PYTHON selects an interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

# Print the first interpreter that can import "$1" and whose version is from 3.$2 to 3.$3; the names are in "${@:4}".
find_python() {
    local candidate
    while read -r candidate; do
        if "$candidate" -c "import sys$1; sys.exit(not (3, $2) <= sys.version_info < (3, $3 + 1))" 2> /dev/null; then
            echo "$candidate"
            return
        fi
    done < <(if [ -n "${PYTHON:-}" ]; then echo "$PYTHON"; else list_pythons "${@:4}"; fi)
    return 1
}

list_pythons() {
    type -aP "$@" || true
    printf '%s\n' "$PWD"/.venv-python/*/bin/python3.11 # from an earlier setup
}

# Install Python 3.11 into .venv-python with uv, which interpreter "$1" installs into a temporary environment. Print its path.
fetch_python() (
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    export UV_PYTHON_INSTALL_DIR="$PWD/.venv-python"
    "$1" -m venv "$scratch" >&2 \
        && "$scratch/bin/python" -m pip install -qq --no-deps --require-hashes -r requirements/uv.pin >&2 \
        && "$scratch/bin/uv" python install --no-cache --no-bin 3.11 >&2 \
        && "$scratch/bin/uv" python find --no-cache --no-project --managed-python 3.11
)

if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "setup: MXNet 1.9.1 exists only for Linux on x86-64. This machine is $(uname -sm). Do one of the following:" >&2
    echo "  (1) Use a Linux machine with an x86-64 processor. Graviton and Apple Silicon are not supported." >&2
    echo "  (2) Build the container image with make image-cpu. It is always for linux/amd64: Docker Desktop emulates that." >&2
    exit 1
fi
supported=(10 11 python3.11 python3.10 python3)
if ! python=$(find_python ", ensurepip, venv" "${supported[@]}"); then
    if found=$(find_python "" "${supported[@]}"); then
        version=$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "setup: $found cannot create virtual environments. Run apt-get install python$version-venv, then make setup." >&2
        exit 1
    fi
    echo "setup: no Python 3.10 or 3.11 found${PYTHON:+ as $PYTHON}. MXNet 1.9.1 does not support later versions." >&2
    if [ -z "${PYTHON:-}" ]; then
        if other=$(find_python ", ensurepip, venv" 8 99 python3 python3.14 python3.13 python3.12); then
            echo "setup: fetching Python 3.11 into .venv-python: uv from the package index (18 MB), and Python from GitHub or" >&2
            echo "  UV_PYTHON_INSTALL_MIRROR (30 MB)" >&2
            python=$(fetch_python "$other") || echo "setup: Python 3.11 cannot be fetched. The lines above contain the reason." >&2
        else
            echo "setup: Python 3.11 cannot be fetched, because no Python here can create virtual environments. Run" >&2
            echo "  apt-get install python3-venv, then make setup." >&2
        fi
    fi
    if [ -z "$python" ]; then
        echo "setup: install Python 3.10 or 3.11. Do one of the following:" >&2
        echo "  (1) Debian 12: apt-get install python3.11-venv. Ubuntu 22.04: apt-get install python3.10-venv." >&2
        echo "  (2) Elsewhere: pyenv install 3.11, or uv python install 3.11. Then run make setup PYTHON=/path/to/python3.11." >&2
        echo "  (3) Without access to GitHub: set UV_PYTHON_INSTALL_MIRROR to a mirror of python-build-standalone." >&2
        exit 1
    fi
fi

echo "setup: creating .venv with $python ($("$python" --version)); this fetches about 300 MB"
"$python" -m venv --clear .venv
install=(.venv/bin/python -m pip install -qq --root-user-action=ignore --no-deps --require-hashes)
"${install[@]}" -r requirements/build.txt
# sagemaker-training compiles a library for MPI jobs, which nothing here loads: CC=true does without a compiler.
CC=true "${install[@]}" --no-build-isolation -r requirements/test.txt
rm -f .venv/bin/train # the toolkit's own command must not be mistaken for this program's

if ! error=$(.venv/bin/python -c "import mxnet" 2>&1); then
    echo "$error" | tail -n 1 >&2
    echo "setup: MXNet cannot be loaded; when a library is missing: apt-get install libgomp1 libquadmath0" >&2
    exit 1
fi
touch .venv/installed

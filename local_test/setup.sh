#!/usr/bin/env bash
# Make .venv from a Python 3.10 or 3.11 and the locked requirements (make setup). PYTHON names an interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

# Print the first interpreter that runs and is a 3.10 or 3.11; "$1" is a further import it has to manage.
find_python() {
    local candidate
    while read -r candidate; do
        if "$candidate" -c "import sys$1; sys.exit(not (3, 10) <= sys.version_info < (3, 12))" 2> /dev/null; then
            echo "$candidate"
            return
        fi
    done < <(if [ -n "${PYTHON:-}" ]; then echo "$PYTHON"; else type -aP python3.11 python3.10 python3; fi)
    return 1
}

if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "setup: MXNet 1.9.1 exists only for Linux on x86-64. This machine is $(uname -sm). Do one of the following:" >&2
    echo "  (1) Use a Linux machine with an x86-64 processor. Graviton and Apple Silicon are not supported." >&2
    echo "  (2) Build the container image with make image-cpu. It is always for linux/amd64: Docker Desktop emulates that." >&2
    exit 1
fi
if ! python=$(find_python ", ensurepip, venv"); then
    if found=$(find_python ""); then
        version=$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "setup: $found cannot make virtual environments: apt-get install python$version-venv" >&2
    else
        echo "setup: no Python 3.10 or 3.11 found${PYTHON:+ as $PYTHON} (MXNet 1.9.1 knows no later one):" >&2
        echo "  Debian 12: apt-get install python3.11-venv; Ubuntu 22.04: apt-get install python3.10-venv" >&2
        echo "  elsewhere: pyenv install 3.11, or uv python install 3.11; then make setup PYTHON=/path/to/python3.11" >&2
    fi
    exit 1
fi

echo "setup: making .venv with $python ($("$python" --version)); about 300 MB are fetched"
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

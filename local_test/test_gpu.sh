#!/usr/bin/env bash
# Run tests/gpu with the CUDA build of MXNet in a separate environment: test_gpu.sh [arguments of pytest…] (make test-gpu)
#
# Where there is no GPU nothing is fetched: the tests say why they are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

# Create .venv-gpu from the locked requirements of the CUDA image, and pytest from those of the tests.
setup() {
    local install=(.venv-gpu/bin/python -m pip install -qq --root-user-action=ignore --no-deps --require-hashes)
    echo "test_gpu: making .venv-gpu; about 2 GB are fetched"
    .venv/bin/python -m venv --clear .venv-gpu
    "${install[@]}" -r requirements/build.txt
    # sagemaker-training compiles a library for MPI jobs, which nothing here loads: CC=true does without a compiler.
    CC=true "${install[@]}" --no-build-isolation -r requirements/gpu.txt
    awk '/^(pytest|iniconfig|pluggy|packaging|pygments|exceptiongroup|tomli)==/ { wanted = 1 }
         wanted { print }
         !/\\$/ { wanted = 0 }' requirements/test.txt > .venv-gpu/pytest.txt
    "${install[@]}" -r .venv-gpu/pytest.txt
    rm -f .venv-gpu/bin/train # the toolkit's own command must not be mistaken for this program's
    touch .venv-gpu/installed
}

venv=.venv
if compgen -G "/dev/nvidia[0-9]*" > /dev/null; then
    venv=.venv-gpu
    if [ ! -f $venv/installed ] || [ requirements/gpu.txt -nt $venv/installed ]; then
        setup
    fi
    # The NVIDIA wheels contain all libraries that the CUDA build of MXNet links to, except libcuda of the driver.
    libraries=$(printf '%s:' "$PWD"/$venv/lib/python3.*/site-packages/nvidia/*/lib)
    export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:-}
fi
exec $venv/bin/python -m pytest -m gpu tests/gpu -rs "$@"

# shellcheck shell=bash
# What the scripts share; sourced by them, from the repository's root.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
test_dir=${TEST_DIR:-local_test/test_dir}
mkdir -p "$test_dir"
test_dir=$(cd "$test_dir" && pwd)
python=.venv/bin/python
source local_test/engine.sh

# Stop with the remedy when the local environment is not there.
need_environment() {
    if [ ! -x "$python" ]; then
        echo "$0: there is no local environment: run make setup" >&2
        exit 1
    fi
}

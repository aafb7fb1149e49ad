#!/usr/bin/env bash
# Serve local_test/test_dir/model.tar.gz as the platform would: serve_local.sh [IMAGE]
#
# Without IMAGE the local environment serves it. PORT is 8080 unless it is set. A browser finds a page there on which to try
# the model; SERVE_UI=0 leaves it out.
set -euo pipefail
source "$(dirname "$0")/common.sh"

image=${1:-}
port=${PORT:-8080}
archive=$test_dir/model.tar.gz
if [ ! -f "$archive" ]; then
    echo "$0: there is no $archive: run local_test/train_local.sh, or put one there" >&2
    exit 1
fi
rm -rf "$test_dir/serve"
mkdir -p "$test_dir/serve/model"
tar -xzf "$archive" -C "$test_dir/serve/model" --no-same-owner

export SERVE_UI=${SERVE_UI:-1}
if [ "$SERVE_UI" = 1 ]; then
    echo "$0: once the model is loaded, try it at http://localhost:$port/" >&2
fi
if [ -n "$image" ]; then
    exec "$(container_engine)" run --rm -p "$port:8080" -e SERVE_UI -v "$test_dir/serve/model:/opt/ml/model:ro,z" "$image" serve
fi
need_environment
export SAGEMAKER_BASE_DIR=$test_dir/serve SAGEMAKER_BIND_TO_PORT=$port
exec "$python" serve

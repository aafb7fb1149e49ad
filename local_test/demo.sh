#!/usr/bin/env bash
# Create data, train, pack, serve, and predict: demo.sh [NAME=VALUE …]
#
# The arguments change hyperparameters of the demo's job, as in: demo.sh epochs=2 algorithm=deeplab
# LEAST_MIOU is the required mIOU (0.75). The demo writes to test_dir/demo.
set -euo pipefail
export TEST_DIR=${TEST_DIR:-local_test/test_dir}/demo
source "$(dirname "$0")/common.sh"
need_environment
export TEST_DIR=$test_dir

say() { echo "[$SECONDS s] $*"; }

say "drawing the data set"
rm -rf "${test_dir:?}"/*
"$python" -m local_test.demo_data --output "$test_dir" "$@"

say "training"
local_test/train_local.sh

PORT=${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')}
export PORT
say "serving on port $PORT"
local_test/serve_local.sh > "$test_dir/serve.log" 2>&1 &
server=$!
trap 'kill "$server" 2> /dev/null && wait "$server" || true' EXIT
deadline=$((SECONDS + 120))
until "$python" -m local_test.predict --endpoint "http://localhost:$PORT"; do
    if ! kill -0 "$server" 2> /dev/null || [ "$SECONDS" -ge "$deadline" ]; then
        cat "$test_dir/serve.log" >&2
        echo "$0: the model is not served; its log stands above" >&2
        exit 1
    fi
    sleep 0.2
done

say "asking for a mask"
images=$(local_test/predict.sh "$test_dir/input/data/validation/validation_0000.jpg")

say "the model's quality (at least ${LEAST_MIOU:=0.75} is expected):"
"$python" -m local_test.score "$test_dir/output/data/report.json" --classes "$test_dir/classes.json" \
    --least "$LEAST_MIOU"
say "done; look at the image under its mask:"
echo "$images" | grep _overlay
report=$test_dir/output/data/report.html
if [ ! -f "$report" ]; then
    report=$test_dir/output/data/report.json
fi
say "the job's report:"
echo "$report"
say "to try your own images at http://localhost:8080/, run:"
printf 'TEST_DIR=%q local_test/serve_local.sh\n' "$test_dir"

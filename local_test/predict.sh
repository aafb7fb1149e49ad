#!/usr/bin/env bash
# Ask the served model for a photograph's mask, and draw it: predict.sh IMAGE_FILE [CONTENT_TYPE]
#
# Writes the mask and an overlay to local_test/test_dir/predictions. PORT is 8080 unless it is set.
set -euo pipefail
if [ $# -lt 1 ]; then
    echo "usage: $0 IMAGE_FILE [CONTENT_TYPE]" >&2
    exit 2
fi
photo=$(realpath "$1")
shift
source "$(dirname "$0")/common.sh"
need_environment
classes=$test_dir/serve/model/classes.json # the served model's own, where it has one
[ -f "$classes" ] || classes=$test_dir/classes.json
exec "$python" -m local_test.predict "$photo" "$@" --endpoint "http://localhost:${PORT:-8080}" \
    --output "$test_dir/predictions" --classes "$classes"

#!/usr/bin/env bash
# Register a pushed image as an Algorithm resource: register_algorithm.sh REGION IMAGE_URI [--name NAME] [--dry-run]
#
# Jobs that use the Algorithm by name get its metric definitions and tuning objectives. --dry-run prints the request and needs
# no account. The script runs examples/boto3_algorithm.py with the environment of make setup, or with a python3 that has boto3.
set -euo pipefail

cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
if ! "$python" -c 'import boto3' 2> /dev/null; then
    echo "$0: $python cannot import boto3. Run make setup, or install boto3 for python3." >&2
    exit 1
fi
exec "$python" examples/boto3_algorithm.py "$@"

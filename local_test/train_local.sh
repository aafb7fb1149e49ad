#!/usr/bin/env bash
# Run a training job on local_test/test_dir as the platform would: train_local.sh [--pipe] [IMAGE]
#
# Without IMAGE the local environment runs it. --pipe streams the channels train and validation through FIFOs.
# What is missing of the job's input is made from the demo data. TEST_DIR names another directory.
set -euo pipefail
source "$(dirname "$0")/common.sh"

pipe=
if [ "${1:-}" = --pipe ]; then
    pipe=1
    shift
fi
image=${1:-}
if [ -z "$image" ] || [ -n "$pipe" ] || [ ! -d "$test_dir/input/data" ]; then
    need_environment
fi

if [ ! -d "$test_dir/input/data" ]; then
    "$python" -m local_test.demo_data --output "$test_dir"
fi
rm -rf "$test_dir/model" "$test_dir/output" "$test_dir/model.tar.gz"
mkdir -p "$test_dir/model" "$test_dir/output/data"

if [ -n "$image" ]; then
    job=("$(container_engine)" run --rm -v "$test_dir:/opt/ml:z" "$image" train)
else
    job=(env "SAGEMAKER_BASE_DIR=$test_dir" "$python" train)
fi

if [ -n "$pipe" ]; then
    config=$test_dir/input/config/inputdataconfig.json
    if [ -f "$config" ]; then
        mv "$config" "$config.directories"
        trap 'mv "$config.directories" "$config"' EXIT
    else
        trap 'rm -f "$config"' EXIT
    fi
    "$python" -m local_test.convert directories "$test_dir/input/data"
    files=()
    for channel in label_map model pretrained test test_annotation; do
        if [ -d "$test_dir/input/data/$channel" ]; then
            files+=("--file-channel=$channel")
        fi
    done
    "$python" -m local_test.pipe_feeder --root "$test_dir" --shuffle "${files[@]}" \
        --channel "train=$test_dir/input/train.manifest" \
        --channel "validation=$test_dir/input/validation.manifest" -- "${job[@]}"
else
    "${job[@]}"
fi

tar -czf "$test_dir/model.tar.gz" -C "$test_dir/model" .
echo "$test_dir/model.tar.gz"

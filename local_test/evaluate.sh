#!/usr/bin/env bash
# Score a model on annotated images, and write its report: evaluate.sh MODEL IMAGES ANNOTATIONS [LABEL_MAP] [--against OTHER]
#
# MODEL and OTHER are model.tar.gz of any job, the built-in algorithm's included, or unpacked directories. The report goes
# to local_test/test_dir/evaluation unless --output names another directory. It trains nothing.
set -euo pipefail
arguments=() before=
for argument in "$@"; do
    case $argument,$before in
        -*,* | *,--precision) arguments+=("$argument") ;;
        *) arguments+=("$(realpath -sm -- "$argument")") ;; # paths are the caller's, who may stand elsewhere
    esac
    before=$argument
done
source "$(dirname "$0")/common.sh"
need_environment
exec "$python" -m local_test.evaluate --output "$test_dir/evaluation" "${arguments[@]}"

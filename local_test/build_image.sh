#!/usr/bin/env bash
# Build an image with docker, podman or buildah: build_image.sh DOCKERFILE TAG [BUILD OPTION…]
#
# PRETRAINED (none, resnet-50, resnet-101 or both with a comma) names the ImageNet weights to bake in. BASE_IMAGE takes
# the place of the Dockerfile's base; BUILD_OPTIONS are further options for the engine, separated by blanks.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 DOCKERFILE TAG [BUILD OPTION…]" >&2
    exit 2
fi
cd "$(dirname "$0")/.."
dockerfile=$1 tag=$2
shift 2
if [ ! -f "$dockerfile" ]; then
    echo "$0: there is no $dockerfile: give Dockerfile or Dockerfile.cpu" >&2
    exit 2
fi
source local_test/engine.sh
engine=$(container_engine buildah)

revision=$(git describe --always --dirty --abbrev=12 2> /dev/null || echo unknown)
version=$(sed -n 's/^## \([0-9.]*\) .*/\1/p' CHANGELOG.md | head -n 1)
options=(--build-arg "PRETRAINED=${PRETRAINED:-none}" --build-arg "REVISION=$revision" --build-arg "VERSION=$version")
if [ -n "${BASE_IMAGE:-}" ]; then
    options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
fi
read -ra further <<< "${BUILD_OPTIONS:-}"
"$engine" build -f "$dockerfile" -t "$tag" "${options[@]}" "${further[@]}" "$@" .
if [ "${PRETRAINED:-none}" = none ]; then
    echo "$0: $tag holds no ImageNet weights: its jobs need use_pretrained_model=False or the channel model;" \
        "PRETRAINED=resnet-50,resnet-101 bakes them in" >&2
fi

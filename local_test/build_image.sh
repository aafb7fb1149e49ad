#!/usr/bin/env bash
# Build an image with docker, podman or buildah: build_image.sh DOCKERFILE TAG [BUILD OPTION…]
#
# PRETRAINED names the backbones whose ImageNet weights are baked in (resnet-50,resnet-101), or none. They come from
# pretrained/, or from where they are published: PRETRAINED_MIRROR names another address. BASE_IMAGE takes the place of the
# Dockerfile's base; BUILD_OPTIONS are further options for the engine, separated by blanks. A proxy that the environment
# names is handed on.
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
pretrained=${PRETRAINED:-resnet-50,resnet-101}
# SageMaker AI accepts only linux/amd64 images with a Docker manifest. podman and buildah write OCI manifests by default. BuildKit
# adds attestations, which turn the manifest into an OCI index, and its default media types depend on the image store.
options=(--platform linux/amd64)
if engine_supports "$engine" build --format; then
    options+=(--format docker)
elif engine_supports "$engine" build --provenance; then
    options+=(--provenance=false --sbom=false --output "type=docker,oci-mediatypes=false")
fi
options+=(--build-arg "PRETRAINED=$pretrained" --build-arg "REVISION=$revision" --build-arg "VERSION=$version")
for name in PRETRAINED_MIRROR BASE_IMAGE http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    if [ -n "${!name:-}" ]; then
        options+=(--build-arg "$name=${!name}")
    fi
done
read -ra further <<< "${BUILD_OPTIONS:-}"
if ! "$engine" build -f "$dockerfile" -t "$tag" "${options[@]}" "${further[@]}" "$@" .; then
    if [ "$pretrained" != none ]; then
        echo "$0: if it is the ImageNet weights that could not be fetched: put them into pretrained/ (see README.md there)," \
            "name a mirror by PRETRAINED_MIRROR, or build with PRETRAINED=none" >&2
    fi
    exit 1
fi
if [ "$pretrained" = none ]; then
    echo "$0: $tag holds no ImageNet weights: its jobs need the channel pretrained, the channel model or" \
        "use_pretrained_model=False" >&2
fi

#!/usr/bin/env bash
# Push a built image to Amazon ECR: build_and_push.sh [--dry-run] REGION NAME [IMAGE]
#
# Builds IMAGE (default: sagemaker-semantic-segmentation:gpu, or sagemaker-semantic-segmentation:cpu) if it does not exist, creates the repository
# NAME if it does not exist, pushes, checks the manifest in the registry, and prints the image URI. --dry-run prints the commands
# and needs no account. REGISTRY=localhost:5000 pushes to a registry on this machine, without AWS.
set -euo pipefail

usage() {
    echo "$0: $1" >&2
    echo "usage: $0 [--dry-run] REGION NAME [IMAGE], as in: $0 us-west-2 sagemaker-semantic-segmentation" >&2
    exit 2
}

dry_run=
if [ "${1:-}" = --dry-run ]; then
    dry_run=1
    shift
fi
[ $# -eq 2 ] || [ $# -eq 3 ] || usage "two or three arguments are needed, not $#"
region=$1 name=$2 image=${3:-sagemaker-semantic-segmentation:gpu}
[[ $region =~ ^[a-z]{2}(-[a-z]+)+-[0-9]+$ ]] || usage "REGION must be like us-west-2, not '$region'"
part='[a-z0-9]+([._-][a-z0-9]+)*'
[[ ${#name} -ge 2 && ${#name} -le 256 && $name =~ ^$part(/$part)*$ ]] ||
    usage "NAME must be a repository's name of 2 to 256 lower-case letters, digits and single . _ - /, not '$name'"
tag=${image##*:}
case $tag in
    cpu) dockerfile=Dockerfile.cpu ;;
    gpu) dockerfile=Dockerfile ;;
    *) usage "IMAGE must end in :cpu or :gpu, not '$image'" ;;
esac
cd "$(dirname "$0")/.."
source local_test/engine.sh

# Run a command, or print it as it could be typed.
run() {
    if [ -n "$dry_run" ]; then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

# Stop with the reason and the fix if SageMaker AI cannot use the pushed image.
check_manifest() {
    local problem
    if ! problem=$(python3 local_test/check_manifest.py "$image_uri" 2>&1); then
        echo "$0: $problem" >&2
        exit 1
    fi
}

password=
if [ -n "$dry_run" ]; then
    engine=docker account=123456789012
else
    engine=$(container_engine buildah)
    command -v python3 > /dev/null || { echo "$0: python3 is missing. Install Python 3." >&2; exit 1; }
fi
if [ -z "${REGISTRY:-}" ] && [ -z "$dry_run" ]; then
    command -v aws > /dev/null || { echo "$0: the AWS CLI is missing. Install awscli." >&2; exit 1; }
    account=$(aws sts get-caller-identity --query Account --output text)
fi
domain=amazonaws.com
case $region in cn-*) domain=amazonaws.com.cn ;; esac
registry=${REGISTRY:-$account.dkr.ecr.$region.$domain}
image_uri=$registry/$name:$tag

if [ -n "$dry_run" ] || ! "$engine" inspect --type image "$image" > /dev/null 2>&1; then
    run local_test/build_image.sh "$dockerfile" "$image"
fi
if [ -z "${REGISTRY:-}" ]; then
    if [ -n "$dry_run" ] || ! aws ecr describe-repositories --region "$region" --repository-names "$name" > /dev/null 2>&1; then
        run aws ecr create-repository --region "$region" --repository-name "$name" \
            --image-scanning-configuration scanOnPush=true
    fi
    if [ -n "$dry_run" ]; then
        echo "aws ecr get-login-password --region $region | $engine login --username AWS --password-stdin $registry"
    else
        password=$(aws ecr get-login-password --region "$region")
        "$engine" login --username AWS --password-stdin "$registry" <<< "$password"
    fi
fi
run "$engine" tag "$image" "$image_uri"
push=(push)
if [ -z "$dry_run" ] && engine_supports "$engine" push --format; then
    push+=(--format v2s2) # podman and buildah: an image from before may have an OCI manifest
fi
case $registry in
    localhost:* | 127.*) if [ -z "$dry_run" ] && engine_supports "$engine" push --tls-verify; then push+=(--tls-verify=false); fi ;;
esac
run "$engine" "${push[@]}" "$image_uri"
if [ -z "$dry_run" ]; then
    check_manifest <<< "$password"
fi
echo "image_uri=$image_uri"

#!/usr/bin/env bash
# Push a built image to Amazon ECR: build_and_push.sh [--dry-run] REGION NAME [IMAGE]
#
# Builds IMAGE (semantic-segmentation:gpu; :cpu is the other one) unless it is there, creates the repository NAME if
# needed, and prints the address to give to an Estimator. --dry-run prints the commands instead; it needs no account.
set -euo pipefail

usage() {
    echo "$0: $1" >&2
    echo "usage: $0 [--dry-run] REGION NAME [IMAGE], as in: $0 us-west-2 semantic-segmentation" >&2
    exit 2
}

dry_run=
if [ "${1:-}" = --dry-run ]; then
    dry_run=1
    shift
fi
[ $# -eq 2 ] || [ $# -eq 3 ] || usage "two or three arguments are needed, not $#"
region=$1 name=$2 image=${3:-semantic-segmentation:gpu}
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

if [ -n "$dry_run" ]; then
    engine=docker account=123456789012
else
    engine=$(container_engine)
    command -v aws > /dev/null || { echo "$0: the AWS command line is missing: install awscli" >&2; exit 1; }
    account=$(aws sts get-caller-identity --query Account --output text)
fi
domain=amazonaws.com
case $region in cn-*) domain=amazonaws.com.cn ;; esac
registry=$account.dkr.ecr.$region.$domain
address=$registry/$name:$tag

if [ -n "$dry_run" ] || ! "$engine" image inspect "$image" > /dev/null 2>&1; then
    run local_test/build_image.sh "$dockerfile" "$image"
fi
if [ -n "$dry_run" ] || ! aws ecr describe-repositories --region "$region" --repository-names "$name" > /dev/null 2>&1; then
    run aws ecr create-repository --region "$region" --repository-name "$name" \
        --image-scanning-configuration scanOnPush=true
fi
if [ -n "$dry_run" ]; then
    echo "aws ecr get-login-password --region $region | $engine login --username AWS --password-stdin $registry"
else
    aws ecr get-login-password --region "$region" | "$engine" login --username AWS --password-stdin "$registry"
fi
run "$engine" tag "$image" "$address"
run "$engine" push "$address"
echo "image_uri=$address"

#!/usr/bin/env bash
# Make a Debian machine of root's build and run images without Docker and without a registry: eval "$(.ci/podman.sh)"
#
# Installs podman, bootstraps a stand-in for the base image, and prints the variables by which podman and
# local_test/build_image.sh find both. Whoever has Docker, or podman with a registry, needs none of this.
set -euo pipefail
work=${CONTAINERS_DIR:-/var/tmp/semantic-segmentation-podman}
base=localhost/debian:bookworm-bootstrapped
mkdir -p "$work"

# What containers may ask for is no more than this shell has; runc and cgroupfs also run where crun and systemd do not.
configure() {
    cat > "$work/containers.conf" << EOF
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=16384:16384"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
EOF
}

# pip in the build trusts the certificates that this machine trusts, and keeps its downloads for the next build. Both lie
# in a home of the build's own, so that nothing of them stays in an image.
build_options() {
    local home=$work/home
    mkdir -p "$home/.config/pip"
    cp /etc/ssl/certs/ca-certificates.crt "$home/ca.crt"
    printf '[global]\ncert = /root/ca.crt\ndisable-pip-version-check = true\n' > "$home/.config/pip/pip.conf"
    echo "--network host -v $home:/root"
}

bootstrap() {
    local root=$work/rootfs
    rm -rf "$root"
    debootstrap --variant=minbase bookworm "$root" > "$work/debootstrap.log"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,info,locale}/*
    printf 'path-exclude /usr/share/%s/*\n' doc man locale > "$root/etc/dpkg/dpkg.cfg.d/docker" # as the slim image has
    tar -C "$root" -c . | podman import --quiet - "$base" > /dev/null
    rm -rf "$root"
}

if ! type podman runc debootstrap docker-registry > /dev/null; then
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        podman runc debootstrap netavark aardvark-dns iptables ca-certificates docker-registry > "$work/apt.log"
fi
configure
export CONTAINERS_CONF=$work/containers.conf
podman image exists "$base" || bootstrap
printf 'export CONTAINERS_CONF=%q BASE_IMAGE=%q BUILD_OPTIONS=%q\n' "$CONTAINERS_CONF" "$base" "$(build_options)"

# shellcheck shell=bash
# Finding the container engine; sourced by the scripts.

# Print the first container engine that answers: docker, podman, or one named as an argument (a builder).
container_engine() {
    local engine
    for engine in docker podman "$@"; do
        if "$engine" version > /dev/null 2>&1; then # fails if there is only the client
            command -v "$engine"
            return
        fi
    done
    echo "$0: no container engine answers: start docker, or install podman" >&2
    return 1
}

# Succeed if a command of the engine has an option: engine_supports ENGINE COMMAND OPTION
engine_supports() {
    [[ $("$1" "$2" --help 2>&1) == *" $3 "* ]]
}

#!/bin/sh
# What the image holds, in two steps, each by the lock: install.sh dependencies|package TORCH EXTRAS
#   TORCH   registry: as the public registry has it, built for CUDA; cpu: the same versions without
#   EXTRAS  of pyproject.toml, with commas between
set -eu
step=$1 torch=$2 extras=$3

case "$torch" in
    registry) backend="" ;;
    cpu) backend="--torch-backend cpu" ;;
    *) echo "TORCH: found $torch, expected registry or cpu" >&2 && exit 2 ;;
esac

case "$step" in
    dependencies)
        wanted="-r pyproject.toml"
        for extra in $(echo "$extras" | tr ',' ' '); do wanted="$wanted --extra $extra"; done
        ;;
    package) wanted="--no-deps --build-constraints requirements.lock ." ;;
    *) echo "step: found $step, expected dependencies or package" >&2 && exit 2 ;;
esac

# shellcheck disable=SC2086  # lists of words on purpose
exec ${UV:-uv} pip install ${UV_ARGUMENTS:-} --compile-bytecode --constraint requirements.lock $backend $wanted

#!/usr/bin/env bash
# Sourced by the other scripts: makes .venv with the extras named in $1 (may be empty), once.
# CPU machines get the pinned CPU build of torch; where nvidia-smi answers, your own CUDA torch is used as it is.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
venv=$top/.venv
extras=${1:-}

has_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; }

if has_gpu; then
    device="GPU, $(nvidia-smi --query-gpu=name --format=csv,noheader | sort | uniq -c | sed 's/^ *//' | paste -sd, -)"
else
    device="CPU, $(nproc) cores"
fi

echo "lens-rl on $device" >&2

constraints() {
    if has_gpu; then grep -v '^torch==' "$top/constraints.txt"; else cat "$top/constraints.txt"; fi
}

stamp=$venv/.installed-${extras:-core}
wanted=$(cat "$top/pyproject.toml" "$top/constraints.txt" | cksum)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    echo "setting up .venv (once) ..." >&2
    if has_gpu; then
        "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null || [ -x "$venv/bin/python" ] || {
            echo "There is an NVIDIA GPU, but $python has no torch that can use it. Install one first, for example" >&2
            echo "    pip install torch     (see pytorch.org for the build that fits your driver)" >&2
            exit 1
        }
        [ -x "$venv/bin/python" ] || "$python" -m venv --system-site-packages "$venv"
    else
        [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    fi
    pins=$(mktemp)
    constraints >"$pins"
    install() {
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$pins" "$@" \
            2> >(grep -v '^WARNING: Location' >&2)
    }
    install --editable "$top${extras:+[$extras]}"
    # The tests compare with mflux, whose own requirements (CUDA builds of mlx, an older huggingface_hub) clash with ours.
    [ "$extras" != test ] || install --no-deps mflux
    rm -f "$pins"
    echo "$wanted" >"$stamp"
fi

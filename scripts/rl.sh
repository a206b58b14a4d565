#!/usr/bin/env bash
# Run an RL job: bash scripts/rl.sh [RECIPE] [--set a.b=c ...]; the embedded world if no recipe is named.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" ""
exec "$venv/bin/lens-rl" rl --runs "$top/runs" "$@"

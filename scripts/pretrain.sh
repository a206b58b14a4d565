#!/usr/bin/env bash
# Train a base model: bash scripts/pretrain.sh [RECIPE] [--quick] [--set a.b=c ...]; the embedded world if no recipe is named.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" pretrain
exec "$venv/bin/lens-rl" pretrain "$@"

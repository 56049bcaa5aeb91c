#!/usr/bin/env bash
# Removes the kind cluster that up.sh has made, and all that is in it.
set -euo pipefail
command -v kind >/dev/null || { echo "kind is not on the PATH, so up.sh has made no cluster." >&2; exit 1; }
kind delete cluster --name hotkey

#!/usr/bin/env bash
# Build the wheel, install it alone in a clean environment outside the clone, and run the README's first example there.
set -euo pipefail
repo="$(cd "$(dirname "$0")/.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never HF_HUB_OFFLINE=1

uv build --quiet --wheel --out-dir "$work/dist" "$repo"
wheel="$(ls "$work"/dist/*.whl)"
size=$(stat -c %s "$wheel")
[ "$size" -le 35000000 ] || { echo "the wheel has $size bytes, more than 35 MB"; exit 1; }

uv venv --quiet "$work/venv"
uv pip install --quiet --python "$work/venv/bin/python" "$wheel"
[ -z "${COMPILED:-}" ] || "$repo/.ci/copy_bytecode" "$COMPILED" "$work/venv"
cd "$work" # nothing of the clone can be imported here
"$work/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import hf_metaprune
from hf_metaprune import MetaPruner
from hf_metaprune.files.shipped import EXAMPLE_TASK, shipped_path

assert "venv" in hf_metaprune.__file__, hf_metaprune.__file__
result = MetaPruner.from_hub("demo-bank").adapt(shipped_path(EXAMPLE_TASK), steps=5)
result.save_pretrained("my_model")
print(result.report.headline())
assert len(result.report.labels) == 5 and Path("my_model/model.safetensors").exists()
assert len(MetaPruner.from_hub("demo-vit-bank").bank) > 0
PYTHON
"$work/venv/bin/hf-metaprune" --version
echo "the wheel ($((size / 1000000)) MB) works outside the clone"

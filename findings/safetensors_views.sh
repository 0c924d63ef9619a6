#!/usr/bin/env bash
# Whether tensors that safetensors has loaded are copies: `load_file` of safetensors.torch and of safetensors.numpy.
#
# One would guess: what `load_file` returns is in memory, and the file may change afterwards.
# What happens with safetensors 0.8.0, on Linux and a CPU: the arrays of NumPy are copies, but the tensors of torch lie in
# the file. A program that writes into the file later changes the loaded tensors. A copy (`tensor.clone()`) does not change.
#
# Output seen:
#   safetensors 0.8.0, torch 2.15.0, numpy 2.4.6
#   the file's last number becomes 2.0 after it was loaded as 1.0
#   torch: 2.0, torch's clone: 1.0, numpy: 1.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
uv venv --quiet env
uv pip install --quiet --python env/bin/python safetensors==0.8.0 torch==2.15.0 numpy==2.4.6 packaging==26.4
env/bin/python - <<'PYTHON'
import struct

import numpy
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

safetensors.torch.save_file({"weight": torch.ones(1000, 1000)}, "model.safetensors")
tensor = safetensors.torch.load_file("model.safetensors")["weight"]
clone = tensor.clone()
array = safetensors.numpy.load_file("model.safetensors")["weight"]
assert tensor[-1, -1] == clone[-1, -1] == array[-1, -1] == 1
with open("model.safetensors", "r+b") as file:
    file.seek(-4, 2)
    file.write(struct.pack("<f", 2.0))

print(f"safetensors {safetensors.__version__}, torch {torch.__version__.split('+')[0]}, numpy {numpy.__version__}")
print("the file's last number becomes 2.0 after it was loaded as 1.0")
values = tensor[-1, -1].item(), clone[-1, -1].item(), float(array[-1, -1])
print("torch: {}, torch's clone: {}, numpy: {}".format(*values))
assert values == (2.0, 1.0, 1.0), "changed"
PYTHON

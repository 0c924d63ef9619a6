#!/usr/bin/env bash
# What `import timm` imports besides networks: timm 1.0.31, torchvision 0.29.2, PyTorch 2.15.0.
#
# One would guess: it loads PyTorch, the classes of the networks, and torchvision's image functions; compilers are loaded
# when somebody compiles.
# What happens: torchvision's operators take one function from `torch._dynamo.utils`, which is enough for all of
# TorchDynamo, most of Inductor, FSDP and sympy: more than a thousand modules, and as much time as PyTorch itself takes.
# timm loads torchvision's models, and with them these operators, for its feature extraction by torch.fx, so every
# program that uses timm pays for it, those that only want an image transform, too.
#
# Output seen (seconds differ):
#   import torch: 1,151 modules, 3.3 s
#   import timm: 3,023 modules, 8.4 s; 1,150 of them by torch._dynamo.utils
#   loaded by timm and not by torch: torch._dynamo, torch._inductor, torch.distributed.fsdp, sympy
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv tools
tools/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
tools/bin/uv venv --quiet env
tools/bin/uv pip install --quiet --python env timm==1.0.31 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6

cat >modules.py <<'PYTHON'
import importlib
import sys
import time

names, loaded = sys.argv[1:], set()
for name in names:
    before, start = set(sys.modules), time.process_time()
    importlib.import_module(name)
    loaded = sys.modules.keys() - before
    print(f"import {name}: {len(loaded):,} modules, {time.process_time() - start:.1f} s")
COMPILERS = ("torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "sympy")
came_along = [name for name in COMPILERS if name in loaded]
print("  among them:", ", ".join(came_along))
assert came_along == list(COMPILERS), "changed: this import loads no compilers any more"
PYTHON
env/bin/python modules.py torch torch._dynamo.utils
env/bin/python modules.py torch timm

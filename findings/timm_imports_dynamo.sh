#!/usr/bin/env bash
# What `import timm` imports besides networks: timm 1.0.31, torchvision 0.29.2, PyTorch 2.15.0.
#
# One would guess: it loads PyTorch, the classes of the networks, and torchvision's image functions; compilers are loaded
# when somebody compiles.
# What happens: torchvision's operators take one function from `torch._dynamo.utils`, and this one import loads
# TorchDynamo, Inductor, FSDP and sympy: some 900 modules, which take at least as long as PyTorch itself. timm imports
# torchvision's models, and with them the operators, for its feature extraction by torch.fx. So every program that imports
# timm pays for a compiler, those that want nothing but an image transform, too.
#
# Output seen (seconds of the CPU; other programs were running):
#   import torch: 1,177 modules, 5.0 s
#   import torch._dynamo.utils: 907 modules, 7.5 s
#     among them: torch._dynamo, torch._inductor, torch.distributed.fsdp, sympy
#   import torch: 1,177 modules, 5.4 s
#   import timm: 1,510 modules, 11.3 s
#     among them: torch._dynamo, torch._inductor, torch.distributed.fsdp, sympy
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
env/bin/python -c "import timm" # compiles all modules, which is not to be measured
env/bin/python modules.py torch torch._dynamo.utils
env/bin/python modules.py torch timm

#!/usr/bin/env bash
# What autograd remembers of a parameter that was made smaller in place: PyTorch 2.15.0.
#
# One would guess: `weight.data = weight.data[:2].clone(); weight.grad = None` is all that it takes to remove units
# while an optimizer goes on with the parameter, whatever else the program holds.
# What happens: that depends on whether any graph of an earlier backward pass is alive, and one variable is enough, such
# as the last loss in a list for a plot. Then the next backward pass asks for a gradient of the former shape and fails.
# Data of another dtype in between makes autograd forget the shape.
#
# Output seen:
#   PyTorch 2.15.0
#   the former loss is gone: the next gradient has the shape (2, 3)
#   the former loss is kept: RuntimeError: ... invalid gradient at index 0 - got [2, 3] but expected shape compatible
#   with [4, 3]
#   the former loss is kept, another dtype in between: the next gradient has the shape (2, 3)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv tools
tools/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
tools/bin/uv venv --quiet env
tools/bin/uv pip install --quiet --python env torch==2.15.0 numpy==2.4.6

cat >shrink.py <<'PYTHON'
import torch
from torch import nn

print("PyTorch", torch.__version__.partition("+")[0])
pixels = torch.ones(1, 3)


def next_gradient(keep: bool, other_dtype: bool) -> str:
    layer = nn.Linear(3, 4, bias=False)
    loss = layer(pixels).sum()
    loss.backward()
    if not keep:
        del loss
    smaller = layer.weight.data[:2].clone()
    if other_dtype:
        layer.weight.data = smaller.double()
    layer.weight.data = smaller
    layer.weight.grad = None
    try:
        layer(pixels).sum().backward()
    except RuntimeError as error:
        return f"RuntimeError: ... {str(error)[str(error).index('invalid'):]}"
    return f"the next gradient has the shape {tuple(layer.weight.grad.shape)}"


gone, kept, changed = next_gradient(False, False), next_gradient(True, False), next_gradient(True, True)
print("the former loss is gone:", gone)
print("the former loss is kept:", kept)
print("the former loss is kept, another dtype in between:", changed)
assert gone == changed == "the next gradient has the shape (2, 3)", "changed: the shape is remembered in other cases"
assert kept.endswith("got [2, 3] but expected shape compatible with [4, 3]"), "changed: the shape is no more remembered"
PYTHON
env/bin/python shrink.py

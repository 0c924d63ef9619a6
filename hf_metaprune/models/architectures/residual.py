"""Shared by convolutional residual families: branches of conv-norm steps whose last norm writes into the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ...errors import ArchitectureError
from .layers import Adder, Axis, Probe, PrunableLayer


@dataclass(frozen=True)
class ConvStep:
    """One convolution of a branch, and the modules after it."""

    conv: str
    """Path of the convolution."""
    norm: str
    """Path of the batch norm that follows it."""
    output: str
    """Path of the module whose output is measured as the units' activations."""


def check_modules(network: nn.Module, allowed: Sequence[type[nn.Module]], what: str) -> None:
    """Refuse a network with a leaf module whose effect on removed units is not known.

    Args:
        network: an unsliced network.
        allowed: types of modules that are accepted; activations that keep zero at zero are accepted, too.
        what: the network's name, for messages.

    Raises:
        ArchitectureError: a module is refused; the message names the first one.
    """
    for path, module in network.named_modules():
        if next(module.children(), None) is not None:
            continue
        if isinstance(module, nn.Conv2d) and module.groups != 1:
            raise ArchitectureError(f"{what}: grouped convolution {path} is not supported")
        if isinstance(module, tuple(allowed)):
            continue
        if next(module.parameters(), None) is None and keeps_zero(module):
            continue
        raise ArchitectureError(f"{what}: {type(module).__name__} at {path} is not supported")


def keeps_zero(module: nn.Module) -> bool:
    """Return whether an activation maps 0 to 0 and keeps shapes: True for ReLU and its kin, False for a sigmoid."""
    if not type(module).__module__.startswith(
        ("torch.nn.modules.activation", "timm.layers.activations", "transformers.activations")
    ):
        return False
    probe = torch.zeros(1, 2, 3, 3, device="cpu")
    output = module(probe)
    return output.shape == probe.shape and bool((output == 0).all())


def branch_layers(network: nn.Module, steps: Sequence[ConvStep], adder: Adder | None = None) -> list[PrunableLayer]:
    """Return the prunable layers of one branch: the filters of each convolution, which the next one reads.

    Args:
        network: an unsliced network.
        steps: the convolutions in forward order; the norm of the last one writes into the stream.
        adder: the block that adds the branch's output into the stream, if it can be replaced.

    Raises:
        ArchitectureError: a step is not a convolution followed by an affine batch norm.
    """
    layers = []
    for i, step in enumerate(steps):
        conv = network.get_submodule(step.conv)
        norm = network.get_submodule(step.norm)
        if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d) or not norm.affine:
            raise ArchitectureError(f"{step.conv}: expected a Conv2d followed by an affine BatchNorm2d, found {norm}")
        names = [f"{step.conv}.weight"] + ([f"{step.conv}.bias"] if conv.bias is not None else [])
        gates = tuple(Axis(f"{step.norm}.{name}", 0) for name in ("weight", "bias"))
        axes = [Axis(name, 0) for name in names]
        axes += [*gates, *(Axis(f"{step.norm}.{name}", 0) for name in ("running_mean", "running_var"))]
        last = i + 1 == len(steps)
        if not last:
            axes.append(Axis(f"{steps[i + 1].conv}.weight", 1))
        layers.append(
            PrunableLayer(
                step.conv,
                conv.out_channels,
                tuple(axes),
                Probe(step.output),
                gates,
                (axes[0],),
                writer=step.norm if last else None,
                adder=adder if last else None,
            )
        )
    return layers

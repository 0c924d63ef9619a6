"""Parameters, MACs and training FLOPs of every sub-network of a base, from one look at the whole of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..masks.mask import Mask
from ..models.architectures.architecture import PrunableLayer, tensor_axes
from ..models.configuration import MetaPrunedConfig
from ..models.modeling import MetaPrunedForImageClassification

Owners = Mapping[str, nn.Conv2d | nn.Linear]
"""The modules that multiply by a weight, by their path in the network."""


@dataclass(frozen=True)
class _Work:
    """FLOPs of one image: for each entry of a weight, for each unit of a layer's attention, and all others."""

    weights: Mapping[str, float]
    units: Mapping[str, float]
    fixed: float


class CostModel:
    """Parameters and FLOPs of every sub-network of a base: exact, without making one.

    Parameters follow from the shapes. A convolution or linear layer has as many MACs as its weight has entries, times
    the places where it is applied, once forward, once for its weight's gradient and once for its input's, where these
    are wanted; what attention computes between tokens is so much a head. All of that is read off passes of the whole
    network by torch's ``FlopCounterMode``: convolutions and matrix products, two FLOPs a MAC. What a kernel computes
    twice to save memory counts once.

    Args:
        config: of any sub-network of the base; its widths do not matter, its labels do.
        image: (1, 3, height, width); only the shape matters.
        frozen_stem: whether the stem is not trained.
    """

    def __init__(self, config: MetaPrunedConfig, image: torch.Tensor, frozen_stem: bool = False) -> None:
        full = Mask.full(config.mask().sizes).pack()
        labels = config.num_labels
        with torch.device("meta"):
            whole = MetaPrunedForImageClassification(
                MetaPrunedConfig(base_model=config.base_model, masks=full, num_labels=labels)
            )
            pixels = torch.zeros(2, *image.shape[-3:])  # two: batch norm refuses one value a channel
        self.layers: list[PrunableLayer] = whole.layers
        self.axes = tensor_axes(self.layers)
        self.shapes = {name: tuple(p.shape) for name, p in whole.network.named_parameters()}
        self._forward, self._training = _measure(whole, pixels, frozen_stem)

    def _entries(self, counts: Mapping[str, int]) -> dict[str, int]:
        """How many entries each parameter has in a sub-network: none if it is gone."""
        gone = [layer.branch for layer in self.layers if layer.branch is not None and not counts[layer.name]]
        entries = {}
        for tensor, whole in self.shapes.items():
            shape = list(whole)
            for axis, layer in self.axes.get(tensor, []):
                shape[axis.dim] = counts[layer.name] * axis.outer * axis.inner
            entries[tensor] = 0 if any(branch.removes(tensor) for branch in gone) else math.prod(shape)
        return entries

    def params(self, counts: Mapping[str, int]) -> int:
        """Trainable numbers."""
        return sum(self._entries(counts).values())

    def macs(self, counts: Mapping[str, int]) -> int:
        """MACs of one image."""
        return self.flops(counts) // 2

    def flops(self, counts: Mapping[str, int]) -> int:
        """FLOPs of one image, forward."""
        return self._sum(self._forward, counts)

    def training_flops(self, counts: Mapping[str, int]) -> int:
        """FLOPs of one image in a training step, forward and backward."""
        return self._sum(self._training, counts)

    def _sum(self, work: _Work, counts: Mapping[str, int]) -> int:
        entries = self._entries(counts)
        weights = sum(each * entries[tensor] for tensor, each in work.weights.items())
        return round(weights + sum(each * counts[name] for name, each in work.units.items()) + work.fixed)


def _measure(whole: MetaPrunedForImageClassification, pixels: torch.Tensor, frozen_stem: bool) -> tuple[_Work, _Work]:
    """The work of a forward pass, and of a training step."""
    owners = {path: m for path, m in whole.network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        whole.eval()(pixels)
    total = counter.get_total_flops() / len(pixels)
    found = {
        name.partition(".network.")[2]: sum(ops.values()) / len(pixels)
        for name, ops in counter.get_flop_counts().items()
    }
    inner = {path: found.get(path, 0.0) for path in owners}
    units = _attention(whole.layers, found, inner)
    fixed = total - sum(inner.values()) - sum(units.values())
    weights = {path: flops / owners[path].weight.numel() for path, flops in inner.items()}
    each = {layer.name: units[layer.name] / layer.size for layer in whole.layers if layer.name in units}
    passes = _passes(whole, owners, pixels, frozen_stem)
    return (
        _Work({f"{path}.weight": n for path, n in weights.items()}, each, fixed),
        _Work(
            {f"{path}.weight": n * passes[path] for path, n in weights.items()},
            {name: 3 * n for name, n in each.items()},  # each of the products has two more, backward
            3 * fixed,
        ),
    )


def _attention(layers: list[PrunableLayer], found: Mapping[str, float], inner: Mapping[str, float]) -> dict[str, float]:
    """FLOPs of layers' branches that no module with a weight accounts for."""
    units = {}
    for layer in layers:
        if layer.branch is not None:
            path = layer.branch.module
            by_weights = sum(flops for name, flops in inner.items() if name.startswith(f"{path}."))
            units[layer.name] = found.get(path, 0.0) - by_weights
    return units


def _passes(
    whole: MetaPrunedForImageClassification, owners: Owners, pixels: torch.Tensor, frozen_stem: bool
) -> dict[str, int]:
    """How often each module computes its product in a training step.

    The counter itself does not know: it takes the gradient of a grouped convolution's weight for that of a dense one,
    and errs on which module a gradient belongs to where modules run side by side.
    """
    whole.train()
    if frozen_stem:
        whole.freeze_stem()
    passes = dict.fromkeys(owners, 0)

    def note(path: str) -> Any:
        return lambda module, args: passes.__setitem__(
            path, 1 + int(module.weight.requires_grad) + int(args[0].requires_grad)
        )

    handles = [module.register_forward_pre_hook(note(path)) for path, module in owners.items()]
    whole(pixels)
    for handle in handles:
        handle.remove()
    return passes


def count_flops(
    model: MetaPrunedForImageClassification, image: torch.Tensor, frozen_stem: bool = False
) -> tuple[int, int]:
    """FLOPs of one image (1, 3, h, w): of a forward pass, and of a training step (forward and backward)."""
    costs = get_cost_model(model.config, image, frozen_stem)
    counts = {name: len(kept) for name, kept in model.mask().items()}
    return costs.flops(counts), costs.training_flops(counts)


def get_cost_model(config: MetaPrunedConfig, image: torch.Tensor, frozen_stem: bool = False) -> CostModel:
    """The costs of all sub-networks of a base with as many labels; made once for all of these."""
    network, sizes = json.dumps(config.base_model, sort_keys=True), tuple(config.mask().sizes.items())
    return _cached_cost_model(network, sizes, config.num_labels, tuple(image.shape[1:]), frozen_stem)


@lru_cache(maxsize=16)  # a bank's entries are slices of one network
def _cached_cost_model(
    network: str, sizes: tuple[tuple[str, int], ...], labels: int, shape: tuple[int, ...], frozen_stem: bool
) -> CostModel:
    full = Mask.full(dict(sizes)).pack()
    config = MetaPrunedConfig(base_model=json.loads(network), masks=full, num_labels=labels)
    return CostModel(config, torch.empty(1, *shape), frozen_stem)

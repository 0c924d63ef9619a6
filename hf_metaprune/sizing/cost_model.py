"""Parameters, MACs and training FLOPs of every sub-network of a base, from one measurement of the whole base."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..masks.mask import Mask
from ..models.architectures.layers import PrunableLayer, tensor_axes
from ..models.configuration import MetaPrunedConfig
from ..models.modeling import MetaPrunedForImageClassification
from .inputs import AdaptInputs

Owners = Mapping[str, nn.Conv2d | nn.Linear]
"""The modules that multiply by a weight, by their path in the network."""


@dataclass(frozen=True)
class _Work:
    """FLOPs per image, split by what they grow with."""

    weights: Mapping[str, float]
    """FLOPs per entry of a weight, by the weight's name."""
    units: Mapping[str, float]
    """FLOPs per unit that no weight accounts for, such as attention between tokens, by layer."""
    constant_flops: float
    """FLOPs that do not depend on the units."""


class CostModel:
    """Exact parameters and FLOPs of every sub-network of a base, without making the sub-networks.

    The parameters follow from the shapes of the tensors. A convolution or linear layer costs one MAC per entry of its
    weight and place where it is applied. A training step computes it up to three times: forward, for the gradient of
    its weight and for the gradient of its input. Attention costs a fixed number of FLOPs per head. All factors are
    measured by torch's ``FlopCounterMode`` in one pass of the whole network. It counts convolutions and matrix
    products, two FLOPs per MAC. What a kernel computes twice to save memory counts once.

    Args:
        config: the config of any sub-network of the base; its labels matter, its mask does not.
        image: an image (1, 3, height, width), of which only the shape matters.
        frozen_stem: whether the stem is not trained.
    """

    def __init__(self, config: MetaPrunedConfig, image: torch.Tensor, frozen_stem: bool = False) -> None:
        full = Mask.full(config.mask().sizes).pack()
        labels = config.num_labels
        with torch.device("meta"):
            whole = MetaPrunedForImageClassification(
                MetaPrunedConfig(base_model=config.base_model, masks=full, num_labels=labels)
            )
            pixels = torch.zeros(2, *image.shape[-3:])  # two, because batch norm needs more than one value per channel
        self.layers: list[PrunableLayer] = whole.layers
        self.axes = tensor_axes(self.layers)
        self.shapes = {name: tuple(p.shape) for name, p in whole.network.named_parameters()}
        self._forward, self._training = _measure(whole, pixels, frozen_stem)

    def _entries(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return how many entries each parameter has in a sub-network, 0 for those of branches without units."""
        empty_branches = [layer.branch for layer in self.layers if layer.branch is not None and not counts[layer.name]]
        entries = {}
        for tensor, whole in self.shapes.items():
            shape = list(whole)
            for axis, layer in self.axes.get(tensor, []):
                shape[axis.dim] = counts[layer.name] * axis.outer * axis.inner
            entries[tensor] = 0 if any(branch.removes(tensor) for branch in empty_branches) else math.prod(shape)
        return entries

    def module_sizes(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the number of parameters of each module that has some itself, by its path in the network.

        Args:
            counts: units by layer.
        """
        sizes: dict[str, int] = {}
        for tensor, entries in self._entries(counts).items():
            if entries:
                path = tensor.rpartition(".")[0]
                sizes[path] = sizes.get(path, 0) + entries
        return sizes

    def params(self, counts: Mapping[str, int]) -> int:
        """Return the number of parameters of a sub-network with `counts` units by layer."""
        return sum(self._entries(counts).values())

    def macs(self, counts: Mapping[str, int]) -> int:
        """Return the MACs per image of a sub-network with `counts` units by layer."""
        return self.flops(counts) // 2

    def flops(self, counts: Mapping[str, int]) -> int:
        """Return the FLOPs per image, forward, of a sub-network with `counts` units by layer."""
        return self._sum(self._forward, counts)

    def training_flops(self, counts: Mapping[str, int]) -> int:
        """Return the FLOPs per image, forward and backward, of a sub-network with `counts` units by layer."""
        return self._sum(self._training, counts)

    def _sum(self, work: _Work, counts: Mapping[str, int]) -> int:
        entries = self._entries(counts)
        by_weights = sum(flops * entries[tensor] for tensor, flops in work.weights.items())
        return round(by_weights + sum(flops * counts[name] for name, flops in work.units.items()) + work.constant_flops)


def _measure(whole: MetaPrunedForImageClassification, pixels: torch.Tensor, frozen_stem: bool) -> tuple[_Work, _Work]:
    """Return the work of a forward pass and of a training step."""
    owners = {path: m for path, m in whole.network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    module_flops = dict.fromkeys((path for path, _ in whole.network.named_modules()), 0.0)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), ExitStack() as hooks:
        # the counter's own figures per module are wrong while another thread counts: its hooks are global
        for path, module in whole.network.named_modules():
            add = partial(_add_flops, module_flops, path, counter)
            hooks.callback(module.register_forward_pre_hook(lambda *_, add=add: add(-1)).remove)
            hooks.callback(module.register_forward_hook(lambda *_, add=add: add(1)).remove)
        whole.eval()(pixels)
        total = counter.get_total_flops() / len(pixels)
    module_flops = {path: flops / len(pixels) for path, flops in module_flops.items()}
    owner_flops = {path: module_flops.get(path, 0.0) for path in owners}
    branch_flops = _branch_flops(whole.layers, module_flops, owner_flops)
    constant_flops = total - sum(owner_flops.values()) - sum(branch_flops.values())
    per_entry = {path: flops / owners[path].weight.numel() for path, flops in owner_flops.items()}
    per_unit = {
        layer.name: branch_flops[layer.name] / layer.size for layer in whole.layers if layer.name in branch_flops
    }
    products = _count_products(whole, owners, pixels, frozen_stem)
    return (
        _Work({f"{path}.weight": flops for path, flops in per_entry.items()}, per_unit, constant_flops),
        _Work(
            {f"{path}.weight": flops * products[path] for path, flops in per_entry.items()},
            {name: 3 * flops for name, flops in per_unit.items()},  # backward, each product needs two more
            3 * constant_flops,
        ),
    )


def _add_flops(module_flops: dict[str, float], path: str, counter: FlopCounterMode, sign: int) -> None:
    module_flops[path] += sign * counter.get_total_flops()


def _branch_flops(
    layers: list[PrunableLayer], module_flops: Mapping[str, float], owner_flops: Mapping[str, float]
) -> dict[str, float]:
    """Return the FLOPs of each layer's branch that no module with a weight accounts for."""
    flops_by_layer = {}
    for layer in layers:
        if layer.branch is not None:
            path = layer.branch.module
            by_weights = sum(flops for name, flops in owner_flops.items() if name.startswith(f"{path}."))
            flops_by_layer[layer.name] = module_flops.get(path, 0.0) - by_weights
    return flops_by_layer


def _count_products(
    whole: MetaPrunedForImageClassification, owners: Owners, pixels: torch.Tensor, frozen_stem: bool
) -> dict[str, int]:
    """Return how often each module computes its product in a training step, forward and backward.

    torch's counter cannot tell: it counts the gradient of a grouped convolution's weight like that of a dense one, and
    assigns gradients to the wrong module when modules run side by side.
    """
    whole.train()
    if frozen_stem:
        whole.freeze_stem()
    products = dict.fromkeys(owners, 0)

    def count(path: str) -> Any:
        return lambda module, args: products.__setitem__(
            path, 1 + int(module.weight.requires_grad) + int(args[0].requires_grad)
        )

    handles = [module.register_forward_pre_hook(count(path)) for path, module in owners.items()]
    whole(pixels)
    for handle in handles:
        handle.remove()
    return products


def count_flops(
    model: MetaPrunedForImageClassification, image: torch.Tensor, frozen_stem: bool = False
) -> tuple[int, int]:
    """Return a model's FLOPs per image.

    Args:
        model: the model.
        image: an image (1, 3, height, width), of which only the shape matters.
        frozen_stem: whether the stem is not trained.

    Returns:
        The FLOPs of a forward pass, and those of a training step, forward and backward.
    """
    costs = get_cost_model(model.config, image, frozen_stem)
    counts = {name: len(units) for name, units in model.mask().items()}
    return costs.flops(counts), costs.training_flops(counts)


def task_cost_model(inputs: AdaptInputs) -> CostModel:
    """Return the cost model of the base's sub-networks, for the task's labels and images."""
    config = inputs.base.config(Mask.full(inputs.sizes), inputs.task.labels)
    return get_cost_model(config, inputs.images.images[:1])


def get_cost_model(config: MetaPrunedConfig, image: torch.Tensor, frozen_stem: bool = False) -> CostModel:
    """Return the cost model of a base's sub-networks; it is made once per base, number of labels and image size.

    Args:
        config: the config of any sub-network of the base; its labels matter, its mask does not.
        image: an image (1, 3, height, width), of which only the shape matters.
        frozen_stem: whether the stem is not trained.
    """
    network, sizes = json.dumps(config.base_model, sort_keys=True), tuple(config.mask().sizes.items())
    return _cached_cost_model(network, sizes, config.num_labels, tuple(image.shape[1:]), frozen_stem)


@lru_cache(maxsize=16)  # a bank's entries are slices of one network
def _cached_cost_model(
    network: str, sizes: tuple[tuple[str, int], ...], labels: int, shape: tuple[int, ...], frozen_stem: bool
) -> CostModel:
    full = Mask.full(dict(sizes)).pack()
    config = MetaPrunedConfig(base_model=json.loads(network), masks=full, num_labels=labels)
    return CostModel(config, torch.empty(1, *shape), frozen_stem)

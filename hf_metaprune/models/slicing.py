"""Slicing: networks that lose units for good. sliced == masked, exactly, is the property all rests on."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import OptionError
from ..masks import Mask
from .architecture import PrunableLayer, architecture_of, kept_indices, layer_sizes, tensor_axes


class ScatterBatchNorm2d(nn.BatchNorm2d):
    """A batch norm over the kept channels of a branch, whose output is put back at their places in the stream.

    Input (batch, kept, h, w) -> output (batch, width, h, w), zero in the channels that were removed.
    """

    index: torch.Tensor

    def __init__(self, norm: nn.BatchNorm2d, width: int, kept: np.ndarray) -> None:
        nn.Module.__init__(self)
        # The norm's own attributes and Parameter objects: optimisers keep their hold on them.
        for name in ("num_features", "eps", "momentum", "affine", "track_running_stats", "training"):
            setattr(self, name, getattr(norm, name))
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.width = width
        self.kept: tuple[int, ...] = ()
        self.register_buffer("index", torch.empty(0, dtype=torch.long), persistent=False)
        self.set_kept(kept)

    def set_kept(self, kept: Iterable[int]) -> None:
        """Place the output at other channels of the stream."""
        self.kept = tuple(int(k) for k in kept)
        self.index = torch.tensor(self.kept, dtype=torch.long, device=self.weight.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        if len(self.kept) == self.width:
            return x
        out = x.new_zeros(x.shape[0], self.width, x.shape[2], x.shape[3])
        return out.index_copy(1, self.index, x)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, width={self.width}"


def _take(tensor: torch.Tensor, positions: Mapping[int, np.ndarray]) -> torch.Tensor:
    for dim, index in positions.items():
        if len(index) != tensor.shape[dim]:
            tensor = tensor.index_select(dim, torch.as_tensor(index, device=tensor.device))
    return tensor


def slice_state(state: Mapping[str, torch.Tensor], layers: list[PrunableLayer], mask: Mask) -> dict[str, torch.Tensor]:
    """The tensors of a full network with only the kept units' entries; other tensors pass through."""
    axes = tensor_axes(layers)
    return {name: _take(t, kept_indices(axes[name], mask)) if name in axes else t for name, t in state.items()}


def shrink(
    network: nn.Module,
    layers: list[PrunableLayer],
    current: Mask,
    target: Mask,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Slice `network`, which holds the units `current`, down to `target`, in place.

    Parameters stay the same objects (only their data shrinks), so that an optimiser goes on with them; its
    per-parameter state (momentum) is sliced along if it is given.

    Raises:
        OptionError: `target` keeps a unit that `current` lacks, or empties a layer.
    """
    empty = [name for name in target if not len(target[name])]
    if empty:
        raise OptionError(f"a layer must keep at least one unit; the mask empties {', '.join(empty[:3])}")
    relative = target.positions_in(current)
    counts = {name: len(current[name]) for name in current}
    states = getattr(optimizer, "state", {})
    for tensor_name, axes in tensor_axes(layers).items():
        owner_name, _, attribute = tensor_name.rpartition(".")
        owner = network.get_submodule(owner_name)
        tensor = getattr(owner, attribute)
        if tensor is None:
            continue
        positions = {axis.dim: axis.indices(relative[layer.name], counts[layer.name]) for axis, layer in axes}
        with torch.no_grad():
            if isinstance(tensor, nn.Parameter):
                for key, value in states.get(tensor, {}).items():
                    if torch.is_tensor(value) and value.shape == tensor.shape:
                        states[tensor][key] = _take(value, positions).clone()
                tensor.data = _take(tensor.data, positions).clone()
                tensor.grad = None
            else:
                setattr(owner, attribute, _take(tensor, positions).clone())
        _update_widths(owner)
    for layer in layers:
        if layer.writer is not None:
            _place(network, layer, target[layer.name])


def _update_widths(module: nn.Module) -> None:
    """Make a module's width attributes agree with its tensors."""
    if isinstance(module, nn.Conv2d):
        module.out_channels, module.in_channels = module.weight.shape[:2]
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = module.running_mean.shape[0]  # type: ignore[union-attr]


def _place(network: nn.Module, layer: PrunableLayer, kept: np.ndarray) -> None:
    assert layer.writer is not None
    writer: Any = network.get_submodule(layer.writer)
    if isinstance(writer, ScatterBatchNorm2d):
        writer.set_kept(kept)
    else:
        parent, _, attribute = layer.writer.rpartition(".")
        setattr(network.get_submodule(parent), attribute, ScatterBatchNorm2d(writer, layer.size, kept))


def slice_network(network: nn.Module, mask: Mask) -> nn.Module:
    """A copy of a full network that holds only the units of `mask`.

    Raises:
        ArchitectureError: the network is not supported.
        OptionError: the mask is of another network.
    """
    layers = architecture_of(network).layers(network)
    sizes = layer_sizes(layers)
    if mask.sizes != sizes:
        raise OptionError("the mask does not fit this network: its layers or their sizes differ")
    sliced = copy.deepcopy(network)
    shrink(sliced, layers, Mask.full(sizes), mask)
    return sliced


def count_parameters(network: nn.Module) -> int:
    """Trainable numbers in a network; batch norm statistics do not count."""
    return sum(p.numel() for p in network.parameters())

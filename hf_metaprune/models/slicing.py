"""Slicing: networks that lose units for good. sliced == masked, exactly, is the property all rests on."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import OptionError
from ..masks.mask import Mask
from .architectures.architecture import Branch, PrunableLayer, kept_indices, layer_sizes, removed_tensors, tensor_axes
from .architectures.lookup import identify_architecture


class ScatterBatchNorm2d(nn.BatchNorm2d):
    """A batch norm over the kept channels of a branch, whose output is put back at their places in the stream.

    Input (batch, kept, h, w) -> output (batch, width, h, w), zero in the channels that were removed; or, where the
    block adds it into the stream by `add_to`, (batch, kept, h, w).
    """

    index: torch.Tensor

    def __init__(self, norm: nn.BatchNorm2d, width: int, kept: np.ndarray, added: bool = False) -> None:
        nn.Module.__init__(self)
        # The norm's own attributes and Parameter objects: optimizers keep their hold on them.
        for name in ("num_features", "eps", "momentum", "affine", "track_running_stats", "training"):
            setattr(self, name, getattr(norm, name))
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.width, self.added = width, added
        self.kept: tuple[int, ...] = ()
        self.register_buffer("index", torch.empty(0, dtype=torch.long), persistent=False)
        self.register_buffer("places", torch.empty(0, dtype=torch.long), persistent=False)
        self.set_kept(kept)

    def set_kept(self, kept: Iterable[int]) -> None:
        """Place the output at other channels of the stream."""
        self.kept = tuple(int(k) for k in kept)
        self.index = torch.tensor(self.kept, dtype=torch.long, device=self.weight.device)
        # of each channel of the stream among the kept ones; that of the others is after them
        self.places = torch.full((self.width,), len(self.kept), device=self.weight.device)
        self.places[self.index] = torch.arange(len(self.kept), device=self.weight.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        return x if self.added else self.placed(x)

    def placed(self, x: torch.Tensor) -> torch.Tensor:
        """The kept channels (batch, kept, h, w) at their places (batch, width, h, w), in the same memory format."""
        if len(self.kept) == self.width:
            return x
        if torch.compiler.is_exporting():  # in 8 bits OpenVINO scatters wrongly, and fails on a Pad
            return torch.cat([x, torch.zeros_like(x[:, :1])], 1).index_select(1, self.places)
        last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        shape = (x.shape[0], self.width, *x.shape[2:])
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout).zero_()
        return out.index_copy_(1, self.index, x)

    def add_to(self, stream: torch.Tensor, x: torch.Tensor, *, fresh: bool) -> torch.Tensor:
        """The stream (batch, width, h, w) with the kept channels (batch, kept, h, w) added at their places.

        On a CPU this is much faster than to place them among zeros and to add it all (docs/findings/slicing.md), which
        is what compilers are given. A `fresh` stream, which nobody else sees, is changed in place.
        """
        if len(self.kept) == self.width or torch.compiler.is_compiling():
            out = self.placed(x)
            out += stream
            return out
        own = stream if fresh and stream.dtype == x.dtype else stream.to(x.dtype, copy=True)  # keeps the memory format
        return own.index_add_(1, self.index, x)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, width={self.width}"


class EmptyBranch(nn.Module):
    """What is left of a branch without units: its bias, for whatever it is given; input and output (batch, ..., width).

    The bias keeps its path inside the branch, and so its name in state dicts.
    """

    def __init__(self, module: nn.Module, branch: Branch) -> None:
        super().__init__()
        self.as_tuple, self.path = branch.as_tuple, branch.bias
        if self.path is not None:
            holder: nn.Module = self
            *parents, name = self.path.split(".")
            for part in parents:
                holder.add_module(part, nn.Module())
                holder = holder.get_submodule(part)
            holder.register_parameter(name, module.get_parameter(self.path))

    def forward(self, x: torch.Tensor, *_args: Any, **_kwargs: Any) -> Any:
        out = torch.zeros_like(x)
        if self.path is not None:
            bias: Any = functools.reduce(getattr, self.path.split("."), self)
            out = out + bias.to(x.dtype)
        return (out, None) if self.as_tuple else out


def _take(tensor: torch.Tensor, positions: Mapping[int, np.ndarray]) -> torch.Tensor:
    for dim, index in positions.items():
        if len(index) != tensor.shape[dim]:
            tensor = tensor.index_select(dim, torch.as_tensor(index, device=tensor.device))
    return tensor


def slice_state(state: Mapping[str, torch.Tensor], layers: list[PrunableLayer], mask: Mask) -> dict[str, torch.Tensor]:
    """The tensors of a full network with only the kept units' entries, without those of branches that are gone."""
    axes, gone = tensor_axes(layers), removed_tensors(state, layers, mask)
    kept = {name: tensor for name, tensor in state.items() if name not in gone}
    return {name: _take(t, kept_indices(axes[name], mask)) if name in axes else t for name, t in kept.items()}


def shrink(
    network: nn.Module,
    layers: list[PrunableLayer],
    current: Mask,
    target: Mask,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Slice `network`, which holds the units `current`, down to `target`, in place.

    Parameters stay the same objects (only their data shrinks), so that an optimizer goes on with them; its
    per-parameter state (momentum) is sliced along if it is given.

    Raises:
        OptionError: `target` keeps a unit that `current` lacks, or empties a layer that must keep one.
    """
    check_no_layer_empty(layers, target)
    relative = target.positions_in(current)
    counts = {name: len(current[name]) for name in current}
    for layer in layers:
        if layer.branch is not None and counts[layer.name] and not len(target[layer.name]):
            _empty(network, layer.branch)
    gone = [layer for layer in layers if layer.branch is not None and not len(target[layer.name])]
    left = [layer for layer in layers if layer not in gone]
    states = getattr(optimizer, "state", {})
    for tensor_name, axes in tensor_axes(left).items():
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
    for layer in left:
        for counter in layer.counters:
            module = network.get_submodule(counter.module)
            if hasattr(module, counter.attribute):
                setattr(module, counter.attribute, counter.per_unit * len(target[layer.name]))
        if layer.writer is not None:
            _place(network, layer, target[layer.name])


def check_no_layer_empty(layers: Sequence[PrunableLayer], mask: Mask) -> None:
    """Refuse a mask that leaves nothing of a layer that needs a unit.

    Raises:
        OptionError: names such layers.
    """
    empty = [layer.name for layer in layers if layer.branch is None and not len(mask[layer.name])]
    if empty:
        raise OptionError(f"a layer must keep at least one unit; the mask empties {', '.join(empty[:3])}")


def _empty(network: nn.Module, branch: Branch) -> None:
    """Leave nothing of a branch but its bias."""
    for path, made in (
        (branch.module, EmptyBranch(network.get_submodule(branch.module), branch)),
        (branch.norm, nn.Identity()),
    ):
        for parameter in network.get_submodule(path).parameters():
            parameter.grad = None  # an optimizer that holds what is gone passes it over
        parent, _, attribute = path.rpartition(".")
        setattr(network.get_submodule(parent), attribute, made)


def _update_widths(module: nn.Module) -> None:
    """Make a module's width attributes agree with its tensors."""
    if isinstance(module, nn.Conv2d):
        module.out_channels = module.weight.shape[0]
        if module.groups == 1:
            module.in_channels = module.weight.shape[1]
        else:  # depthwise: each channel has its own filter
            module.groups = module.in_channels = module.out_channels
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = module.running_mean.shape[0]  # type: ignore[union-attr]


def _place(network: nn.Module, layer: PrunableLayer, kept: np.ndarray) -> None:
    assert layer.writer is not None
    writer: Any = network.get_submodule(layer.writer)
    if isinstance(writer, ScatterBatchNorm2d):
        writer.set_kept(kept)
        return
    parent, _, attribute = layer.writer.rpartition(".")
    made = ScatterBatchNorm2d(writer, layer.size, kept, added=layer.adder is not None)
    setattr(network.get_submodule(parent), attribute, made)
    if layer.adder is not None:
        network.get_submodule(layer.adder.module).__class__ = layer.adder.kind


def slice_network(network: nn.Module, mask: Mask) -> nn.Module:
    """A copy of a full network that holds only the units of `mask`, which may have the layers of the stem, too.

    Raises:
        ArchitectureError: the network is not supported.
        OptionError: the mask is of another network.
    """
    family = identify_architecture(network)
    layers = family.layers(network)
    if len(mask) > len(layers):
        layers = family.all_layers(network, stem=True)
    sizes = layer_sizes(layers)
    if mask.sizes != sizes:
        raise OptionError("the mask does not fit this network: its layers or their sizes differ")
    sliced = copy.deepcopy(network)
    shrink(sliced, layers, Mask.full(sizes), mask)
    return sliced


def count_parameters(network: nn.Module) -> int:
    """Trainable numbers in a network; batch norm statistics do not count."""
    return sum(p.numel() for p in network.parameters())

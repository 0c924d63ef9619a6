"""Slicing: networks that lose units for good.

The whole project rests on one property: a sliced network computes exactly what the masked network computes.
"""

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
from .architectures.layers import Branch, PrunableLayer, kept_indices, layer_sizes, removed_tensors, tensor_axes
from .architectures.lookup import identify_architecture

STATISTICS = ("running_mean", "running_var")
"""Ends of the names of batch norm statistics."""
META_INDEX: dict[str, Any] = {"dtype": torch.long, "device": "meta"}


class ScatterBatchNorm2d(nn.BatchNorm2d):
    """A batch norm over the kept channels of a branch, whose output goes to their places in the stream.

    The input is float (batch, kept, h, w). The output is float (batch, width, h, w), with zeros in the removed
    channels. If the block adds the output into the stream itself by `add_to`, the output is (batch, kept, h, w).

    Args:
        norm: the norm of the branch; its parameters and statistics are used, not copied.
        width: number of channels of the stream.
        kept: indices of the kept channels, int (kept,).
        added: whether the block adds the output into the stream by `add_to`.
    """

    index: torch.Tensor
    """Indices of the kept channels, int64 (kept,)."""
    places: torch.Tensor
    """Position per channel of the stream among the kept ones, int64 (width,); removed channels have ``kept``."""

    def __init__(self, norm: nn.BatchNorm2d, width: int, kept: np.ndarray, added: bool = False) -> None:
        nn.Module.__init__(self)
        # the norm's own Parameter objects, because an optimizer may hold them
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
        """Set the channels of the stream at which the output is placed."""
        self.kept = tuple(int(k) for k in kept)
        if self.weight.is_meta:  # where kernels are slow, and there is nothing to fill
            self.index, self.places = torch.empty(len(self.kept), **META_INDEX), torch.empty(self.width, **META_INDEX)
            return
        self.index = torch.tensor(self.kept, dtype=torch.long, device=self.weight.device)
        self.places = torch.full((self.width,), len(self.kept), device=self.weight.device)
        self.places[self.index] = torch.arange(len(self.kept), device=self.weight.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        return x if self.added else self.scatter(x)

    def scatter(self, x: torch.Tensor) -> torch.Tensor:
        """Place the kept channels (batch, kept, h, w) among zeros (batch, width, h, w), in the same memory format."""
        if len(self.kept) == self.width:
            return x
        if torch.compiler.is_exporting():  # in 8 bits OpenVINO scatters wrongly, and fails on a Pad
            return torch.cat([x, torch.zeros_like(x[:, :1])], 1).index_select(1, self.places)
        is_channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_channels_last else torch.contiguous_format
        shape = (x.shape[0], self.width, *x.shape[2:])
        output = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout).zero_()
        return output.index_copy_(1, self.index, x)

    def add_to(self, stream: torch.Tensor, x: torch.Tensor, *, fresh: bool) -> torch.Tensor:
        """Add the kept channels into the stream at their places.

        On a CPU this is much faster than adding the output of `scatter` (docs/findings/slicing.md). Compilers get the
        latter.

        Args:
            stream: float (batch, width, h, w).
            x: the output of this norm, float (batch, kept, h, w).
            fresh: whether only the caller holds the stream, so that it may be changed in place.

        Returns:
            The sum in the dtype of `x`, (batch, width, h, w).
        """
        if len(self.kept) == self.width or torch.compiler.is_compiling():
            output = self.scatter(x)
            output += stream
            return output
        in_place = fresh and stream.dtype == x.dtype
        target = stream if in_place else stream.to(x.dtype, copy=True)  # keeps the memory format
        return target.index_add_(1, self.index, x)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, width={self.width}"


class EmptyBranch(nn.Module):
    """The constant that replaces a branch without units: its last bias, or zeros.

    Input and output are float (batch, ..., width). The bias keeps its path inside the branch, and so its name in state
    dicts.

    Args:
        module: the module that computed the branch.
        branch: where its bias lies, and whether it returns a tuple.
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
        output = torch.zeros_like(x)
        if self.path is not None:
            bias: Any = functools.reduce(getattr, self.path.split("."), self)
            output = output + bias.to(x.dtype)
        return (output, None) if self.as_tuple else output


def _select_entries(tensor: torch.Tensor, positions: Mapping[int, np.ndarray]) -> torch.Tensor:
    """Return only the entries at some positions per dimension."""
    if tensor.is_meta:  # it has a shape only, and torch's kernels for such tensors are slow
        shape = [len(positions[dim]) if dim in positions else size for dim, size in enumerate(tensor.shape)]
        return torch.empty(shape, dtype=tensor.dtype, device="meta")
    for dim, index in positions.items():
        if len(index) != tensor.shape[dim]:
            tensor = tensor.index_select(dim, torch.as_tensor(index, device=tensor.device))
    return tensor


def is_statistic(tensor: str) -> bool:
    """Return whether a name is that of a batch norm statistic."""
    return tensor.endswith(STATISTICS)


def slice_state(state: Mapping[str, torch.Tensor], layers: list[PrunableLayer], mask: Mask) -> dict[str, torch.Tensor]:
    """Return the tensors of a sub-network.

    Args:
        state: the tensors of the full network by name.
        layers: the prunable layers of the full network.
        mask: the units to keep.

    Returns:
        The tensors by name, each with the entries of the kept units only; branches without units keep only their bias.
    """
    axes, removed = tensor_axes(layers), removed_tensors(state, layers, mask)
    kept_tensors = {name: tensor for name, tensor in state.items() if name not in removed}
    return {
        name: _select_entries(tensor, kept_indices(axes[name], mask)) if name in axes else tensor
        for name, tensor in kept_tensors.items()
    }


@torch.no_grad()
def shrink(
    network: nn.Module,
    layers: list[PrunableLayer],
    current: Mask,
    target: Mask,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Slice a network down to fewer units, in place.

    Parameters stay the same objects, and only their data shrinks, so that an optimizer can go on with them.

    Args:
        network: a whole or a sliced network.
        layers: the prunable layers of the whole network.
        current: the units that the network holds.
        target: the units to keep.
        optimizer: an optimizer whose state per parameter, such as momentum, is sliced, too.

    Raises:
        OptionError: `target` keeps a unit that `current` lacks, or empties a layer that must keep one.
    """
    check_no_layer_empty(layers, target)
    relative = target.positions_in(current)
    counts = {name: len(current[name]) for name in current}
    for layer in layers:
        if layer.branch is not None and counts[layer.name] and not len(target[layer.name]):
            _replace_by_bias(network, layer.branch)
    empty_layers = [layer for layer in layers if layer.branch is not None and not len(target[layer.name])]
    kept_layers = [layer for layer in layers if layer not in empty_layers]
    states = getattr(optimizer, "state", {})
    for tensor_name, axes in tensor_axes(kept_layers).items():
        owner_name, _, attribute = tensor_name.rpartition(".")
        owner = network.get_submodule(owner_name)
        tensor = getattr(owner, attribute)
        if tensor is None:
            continue
        positions = {axis.dim: axis.indices(relative[layer.name], counts[layer.name]) for axis, layer in axes}
        if isinstance(tensor, nn.Parameter):
            for key, value in states.get(tensor, {}).items():
                if torch.is_tensor(value) and value.shape == tensor.shape:
                    states[tensor][key] = _select_entries(value, positions)
            replace_data(tensor, _select_entries(tensor.data, positions))
        else:
            setattr(owner, attribute, _select_entries(tensor, positions))
        _update_widths(owner)
    for layer in kept_layers:
        for counter in layer.counters:
            module = network.get_submodule(counter.module)
            if hasattr(module, counter.attribute):
                setattr(module, counter.attribute, counter.per_unit * len(target[layer.name]))
        if layer.writer is not None:
            _place_writer(network, layer, target[layer.name])


def replace_data(parameter: nn.Parameter, data: torch.Tensor) -> None:
    """Give a parameter data of another shape, and no gradient, so that the next backward pass is one of the new shape.

    While a graph of before is alive (somebody keeps a loss, or a debugger the variables of a frame), autograd goes on
    to ask for gradients of the former shape. It starts anew if the dtype changes (PyTorch 2.10 to 2.15).
    """
    parameter.grad = None
    parameter.data = torch.empty(0, dtype=torch.float32 if data.dtype == torch.float64 else torch.float64)
    parameter.data = data


def check_no_layer_empty(layers: Sequence[PrunableLayer], mask: Mask) -> None:
    """Refuse a mask that keeps no unit of a layer that needs one.

    Raises:
        OptionError: there is such a layer; the message names up to three.
    """
    empty = [layer.name for layer in layers if layer.branch is None and not len(mask[layer.name])]
    if empty:
        raise OptionError(f"a layer must keep at least one unit; the mask empties {', '.join(empty[:3])}")


def _replace_by_bias(network: nn.Module, branch: Branch) -> None:
    """Replace a branch by its bias, and remove the norm before it."""
    for path, replacement in (
        (branch.module, EmptyBranch(network.get_submodule(branch.module), branch)),
        (branch.norm, nn.Identity()),
    ):
        for parameter in network.get_submodule(path).parameters():
            parameter.grad = None  # so that an optimizer that still holds the parameter skips it
        parent, _, attribute = path.rpartition(".")
        setattr(network.get_submodule(parent), attribute, replacement)


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


def _place_writer(network: nn.Module, layer: PrunableLayer, kept: np.ndarray) -> None:
    """Make the last norm of a branch write at the kept channels of the stream."""
    assert layer.writer is not None
    writer: Any = network.get_submodule(layer.writer)
    if isinstance(writer, ScatterBatchNorm2d):
        writer.set_kept(kept)
        return
    parent, _, attribute = layer.writer.rpartition(".")
    scatter_norm = ScatterBatchNorm2d(writer, layer.size, kept, added=layer.adder is not None)
    setattr(network.get_submodule(parent), attribute, scatter_norm)
    if layer.adder is not None:
        network.get_submodule(layer.adder.module).__class__ = layer.adder.kind


def slice_network(network: nn.Module, mask: Mask) -> nn.Module:
    """Return a copy of a full network that holds only the units of a mask.

    Args:
        network: an unsliced network; it is not changed.
        mask: the units to keep, with or without the layers of the stem.

    Raises:
        ArchitectureError: the network is not supported.
        OptionError: the mask belongs to another network, or empties a layer that must keep a unit.
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
    """Return the number of parameters of a network; batch norm statistics do not count."""
    return sum(p.numel() for p in network.parameters())

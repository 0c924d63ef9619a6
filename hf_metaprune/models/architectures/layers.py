"""Prunable layers: where the parameters of their units lie, and what else changes with them.

Slicing, averaging, importance and all checks work from a list of `PrunableLayer` alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ...masks.mask import Mask


@dataclass(frozen=True)
class Axis:
    """The place of a layer's units in one tensor.

    Dimension `dim` of `tensor` has ``outer * n_units * inner`` entries. Unit k owns the entries
    ``(o * n_units + k) * inner + i`` for each o below `outer` and each i below `inner`. The filters of a convolution
    have outer = inner = 1. The heads of a fused qkv projection have outer = 3 and inner = the width of a head.

    Example:
        The second of four heads, each two rows wide, in a fused qkv projection:

        >>> import numpy as np
        >>> Axis("attn.qkv.weight", dim=0, outer=3, inner=2).indices(np.array([1]), size=4)
        array([ 2,  3, 10, 11, 18, 19])
    """

    tensor: str
    """Name of the tensor in the network's state dict."""
    dim: int
    """Dimension of the tensor along which the units lie."""
    outer: int = 1
    """Number of blocks that each hold all units once."""
    inner: int = 1
    """Number of neighboring entries per unit in a block."""

    def indices(self, kept: np.ndarray, size: int) -> np.ndarray:
        """Return the entries along `dim` that belong to some units.

        Args:
            kept: the units' indices, int (kept,).
            size: number of units of the whole layer.

        Returns:
            Indices into dimension `dim`, int (outer * kept * inner,), block by block, the units in the order of `kept`.
        """
        blocks = np.arange(self.outer)[:, None, None] * size + kept[None, :, None]
        return (blocks * self.inner + np.arange(self.inner)[None, None, :]).reshape(-1)

    def by_unit(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor's entries per unit.

        Args:
            values: numbers in the shape of the tensor of this axis.

        Returns:
            One sum per unit that the tensor holds, (units,), in the dtype of `values`.

        Example:
            >>> Axis("conv1.weight", dim=0).by_unit(torch.ones(2, 3, 5, 5))
            tensor([75., 75.])
        """
        sums = values.movedim(self.dim, 0).flatten(1).sum(1) if values.ndim > 1 else values
        return sums.view(self.outer, -1, self.inner).sum((0, 2))

    def spread(self, scores: torch.Tensor, ndim: int) -> torch.Tensor:
        """Return one number per unit in a shape that multiplies the tensor of this axis.

        Args:
            scores: one number per unit, (units,).
            ndim: number of dimensions of the tensor.

        Returns:
            The scores, repeated for all entries of each unit: `ndim` dimensions, all of size 1 except `dim`.

        Example:
            >>> Axis("proj.weight", dim=1, inner=2).spread(torch.tensor([0.5, 2.0]), ndim=2)
            tensor([[0.5000, 0.5000, 2.0000, 2.0000]])
        """
        entries = scores[None, :, None].expand(self.outer, -1, self.inner).reshape(-1)
        return entries.view([-1 if dim == self.dim else 1 for dim in range(ndim)])


@dataclass(frozen=True)
class Probe:
    """The place where the activations of a layer's units are measured: the output or the input of a module.

    Dimension `dim` of that tensor has `inner` entries per unit, one unit after the other.

    Example:
        Attention heads of width 64 are measured where they enter the output projection:

        >>> Probe("blocks.0.attn.proj", dim=-1, inner=64, at_input=True).at_input
        True
    """

    module: str
    """Module path in the network."""
    dim: int = 1
    """Dimension of the activations along which the units lie."""
    inner: int = 1
    """Number of neighboring entries per unit."""
    at_input: bool = False
    """Whether the module's input is measured, and not its output."""


@dataclass(frozen=True)
class Counter:
    """A number that a module stores and that depends on how many units it holds.

    Slicing sets the attribute to ``per_unit * kept``. An attribute that the module lacks, because its library has
    another version, is skipped.

    Example:
        A depthwise convolution has as many groups as channels:

        >>> Counter("blocks.1.0.conv_dw", "groups").per_unit
        1
    """

    module: str
    """Module path in the network."""
    attribute: str
    """Name of the module's attribute."""
    per_unit: int = 1
    """How much each unit adds to the number."""


@dataclass(frozen=True)
class Branch:
    """A branch of the residual stream that is a constant once its last unit is removed.

    The whole `module` is then replaced by the bias of its last layer. The `norm` before it is removed, too, because
    nothing else reads it.

    Example:
        >>> attention = Branch("blocks.0.attn", bias="proj.bias", norm="blocks.0.norm1")
        >>> attention.removes("blocks.0.attn.qkv.weight"), attention.removes("blocks.0.attn.proj.bias")
        (True, False)
    """

    module: str
    """Path of the module that computes the branch."""
    bias: str | None
    """Path, inside the module, of the bias that the branch adds last; None if there is none."""
    norm: str
    """Path of the norm that only this branch reads."""
    as_tuple: bool = False
    """Whether the module returns a tuple, of which the first item is the output."""

    def removes(self, tensor: str) -> bool:
        """Return whether a tensor of the network is removed with the branch's last unit.

        Args:
            tensor: name of the tensor in the network's state dict.

        Returns:
            True for all tensors of the module and the norm, except the bias that stays.
        """
        if tensor == f"{self.module}.{self.bias}":
            return False
        return tensor.startswith((f"{self.module}.", f"{self.norm}."))


@dataclass(frozen=True)
class Adder:
    """A block that adds a branch's output into the stream, and the class it gets when it is sliced."""

    module: str
    """Path of the block."""
    kind: type[nn.Module]
    """A class like the block's own that adds at the kept channels only."""


@dataclass(frozen=True)
class PrunableLayer:
    """A layer whose units can be removed, and everything in the network that changes with them.

    Example:
        The first convolution of a block: its filters, and the columns of the convolution that reads them.

        >>> scale, shift = Axis("bn1.weight", 0), Axis("bn1.bias", 0)
        >>> statistics = (Axis("bn1.running_mean", 0), Axis("bn1.running_var", 0))
        >>> filters = Axis("conv1.weight", 0)
        >>> axes = (filters, scale, shift, *statistics, Axis("conv2.weight", 1))
        >>> layer = PrunableLayer("conv1", 64, axes, Probe("act1"), gates=(scale, shift), filters=(filters,))
        >>> layer.size
        64
    """

    name: str
    """Module path of the layer in the base model."""
    size: int
    """Number of units in the base model."""
    axes: tuple[Axis, ...]
    """Every tensor that loses entries with a unit, as its output or as its input."""
    probe: Probe
    """Where the activations of the units are measured."""
    gates: tuple[Axis, ...]
    """Entries in which a unit's output is linear; setting them to zero removes the unit, as a mask does."""
    filters: tuple[Axis, ...]
    """Entries that compute a unit."""
    counters: tuple[Counter, ...] = ()
    """Numbers in modules that must agree with the number of kept units."""
    writer: str | None = None
    """Path of the batch norm whose output goes into the stream at the kept channels (ResNets), if any."""
    adder: Adder | None = None
    """The block that adds the writer's output, if the block has a class that leaves removed channels alone."""
    branch: Branch | None = None
    """What stays if all units are removed; a layer without a branch keeps at least one unit."""


def layer_sizes(layers: list[PrunableLayer]) -> dict[str, int]:
    """Return the number of units per layer name, as a `Mask` needs them."""
    return {layer.name: layer.size for layer in layers}


def tensor_axes(layers: list[PrunableLayer]) -> dict[str, list[tuple[Axis, PrunableLayer]]]:
    """Return, per tensor that pruning changes, its axes with their layers."""
    table: dict[str, list[tuple[Axis, PrunableLayer]]] = {}
    for layer in layers:
        for axis in layer.axes:
            table.setdefault(axis.tensor, []).append((axis, layer))
    return table


def removed_tensors(names: Iterable[str], layers: list[PrunableLayer], mask: Mask) -> set[str]:
    """Return those of a full network's tensors that a sub-network lacks because a whole branch is removed."""
    empty = [layer.branch for layer in layers if layer.branch is not None and not len(mask[layer.name])]
    return {name for name in names if any(branch.removes(name) for branch in empty)} if empty else set()


def kept_indices(axes: list[tuple[Axis, PrunableLayer]], mask: Mask) -> dict[int, np.ndarray]:
    """Return, per dimension of one tensor, the indices of the base's entries that `mask` keeps."""
    return {axis.dim: axis.indices(mask[layer.name], layer.size) for axis, layer in axes}

"""Neighbors' weights -> the weights of one sub-network (MVP, Algorithm 1, line 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..errors import FormatError
from ..masks.mask import Mask
from ..models.architectures.architecture import Axis, PrunableLayer, kept_indices, removed_tensors, tensor_axes

PREFIX = "network."


def average_weights(
    entries: Sequence,
    mask: Mask,
    base: Mapping[str, torch.Tensor],
    layers: list[PrunableLayer],
    skip: Sequence[str] = (),
) -> dict[str, torch.Tensor]:
    """The sliced state of `mask`, averaged entry by entry over the neighbors that hold each entry.

    An entry of a tensor is held by a neighbor that keeps every unit it belongs to (a filter's weight on an input
    channel: both). Where no neighbor holds one, the base's value stands. Tensors that pruning does not touch
    are averaged over all neighbors. Batch norm statistics are averaged like weights. Sums are taken in float32;
    tensors are read one at a time from each neighbor's file.

    Args:
        entries: neighbors with ``mask`` and ``open_weights()`` (see `Entry`).
        mask: the units to keep.
        base: all tensors of the base network, by name.
        layers: the base's prunable layers.
        skip: tensors that are left out (the classifier: its classes differ between tasks).

    Raises:
        FormatError: a neighbor's tensor is missing or has a shape its mask does not explain.
    """
    axes = tensor_axes(layers)
    sums: dict[str, torch.Tensor] = {}
    shares: dict[str, torch.Tensor] = {}
    gone = removed_tensors(base, layers, mask)
    wanted = [n for n in base if n not in skip and n not in gone]
    names = [n for n in wanted if base[n].is_floating_point()]
    targets = {n: kept_indices(axes.get(n, []), mask) for n in names}
    for n in names:
        sums[n] = torch.zeros_like(_take(base[n], targets[n]), dtype=torch.float32)
        shares[n] = torch.zeros_like(sums[n])
    for entry in entries:
        own_mask = entry.mask.with_whole_layers(mask.sizes)
        lacks = removed_tensors(names, layers, own_mask)
        with entry.open_weights() as file:
            stored = set(file.keys())
            for n in names:
                if n in lacks:
                    continue
                if PREFIX + n not in stored:
                    raise FormatError(f"entry {entry.id} has no tensor {n}")
                _add(sums[n], shares[n], file.get_tensor(PREFIX + n), axes.get(n, []), mask, own_mask, entry.id)
    out = {n: base[n] for n in wanted if not base[n].is_floating_point()}
    for n in names:
        fallback = _take(base[n], targets[n]).float()
        out[n] = torch.where(shares[n] > 0, sums[n] / shares[n].clamp(min=1e-12), fallback)
    return {n: out[n] for n in base if n in out}


def _take(tensor: torch.Tensor, indices: Mapping[int, np.ndarray]) -> torch.Tensor:
    for dim, index in indices.items():
        tensor = tensor.index_select(dim, torch.as_tensor(index))
    return tensor


def _add(
    total: torch.Tensor,
    share: torch.Tensor,
    stored: torch.Tensor,
    axes: list[tuple[Axis, PrunableLayer]],
    mask: Mask,
    own: Mask,
    entry_id: str,
) -> None:
    """Add what a neighbor holds of one tensor to `total`, and count it in `share`."""
    shape = list(total.shape)
    for axis, layer in axes:
        shape[axis.dim] = len(own[layer.name]) * axis.outer * axis.inner
    if list(stored.shape) != shape:
        raise FormatError(f"entry {entry_id}: a tensor has shape {tuple(stored.shape)}, its mask says {tuple(shape)}")
    here, there = [torch.arange(n) for n in total.shape], [torch.arange(n) for n in stored.shape]
    for axis, layer in axes:
        _, mine, theirs = np.intersect1d(mask[layer.name], own[layer.name], return_indices=True)
        here[axis.dim] = torch.as_tensor(axis.indices(mine, len(mask[layer.name])))
        there[axis.dim] = torch.as_tensor(axis.indices(theirs, len(own[layer.name])))
    values = stored[torch.meshgrid(*there, indexing="ij")].float() if stored.ndim else stored.float()
    where = torch.meshgrid(*here, indexing="ij") if total.ndim else ()
    total[where] += values
    share[where] += 1.0

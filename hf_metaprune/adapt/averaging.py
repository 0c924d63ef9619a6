"""The average of the neighbors' weights as the first weights of a sub-network (MVP, Algorithm 1, line 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..errors import FormatError
from ..masks.mask import Mask
from ..models.architectures.layers import Axis, PrunableLayer, kept_indices, removed_tensors, tensor_axes

PREFIX = "network."
"""What an entry's tensor names have before the base's tensor names."""


def average_weights(
    entries: Sequence,
    mask: Mask,
    base: Mapping[str, torch.Tensor],
    layers: list[PrunableLayer],
    skip: Sequence[str] = (),
) -> dict[str, torch.Tensor]:
    """Return the weights of a sub-network, averaged over the neighbors value by value.

    A neighbor has a value of a tensor if it keeps every unit that the value belongs to. For example, a filter's weight
    on an input channel belongs to the filter and to the channel. Values that no neighbor has come from the base. Values
    that belong to no unit are averaged over all neighbors. Batch norm statistics are averaged like weights.

    The sums are float32, and each neighbor's file is read tensor by tensor, so that memory does not grow with the
    number of neighbors.

    Args:
        entries: neighbors with ``mask`` and ``open_weights()`` (see `Entry`).
        mask: the units of the sub-network.
        base: all tensors of the base network, by name.
        layers: the base's prunable layers.
        skip: names of tensors to leave out, such as the classifier's, whose classes differ between tasks.

    Returns:
        The sliced tensors by name, floats in float32, in the order of `base`.

    Raises:
        FormatError: a neighbor lacks a tensor, or a tensor's shape does not fit the neighbor's mask.
    """
    axes = tensor_axes(layers)
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, torch.Tensor] = {}
    removed = removed_tensors(base, layers, mask)
    kept_names = [n for n in base if n not in skip and n not in removed]
    names = [n for n in kept_names if base[n].is_floating_point()]
    indices = {n: kept_indices(axes.get(n, []), mask) for n in names}
    for n in names:
        sums[n] = torch.zeros_like(_select(base[n], indices[n]), dtype=torch.float32)
        counts[n] = torch.zeros_like(sums[n])
    for entry in entries:
        entry_mask = entry.mask.with_whole_layers(mask.sizes)
        entry_removed = removed_tensors(names, layers, entry_mask)
        with entry.open_weights() as file:
            stored_names = set(file.keys())
            for n in names:
                if n in entry_removed:
                    continue
                if PREFIX + n not in stored_names:
                    raise FormatError(f"entry {entry.id} has no tensor {n}")
                _add(sums[n], counts[n], file.get_tensor(PREFIX + n), axes.get(n, []), mask, entry_mask, entry.id)
    averages = {n: base[n] for n in kept_names if not base[n].is_floating_point()}
    for n in names:
        base_values = _select(base[n], indices[n]).float()
        averages[n] = torch.where(counts[n] > 0, sums[n] / counts[n].clamp(min=1e-12), base_values)
    return {n: averages[n] for n in base if n in averages}


def _select(tensor: torch.Tensor, indices: Mapping[int, np.ndarray]) -> torch.Tensor:
    """Return the part of a tensor that has the given indices in each dimension."""
    for dim, index in indices.items():
        tensor = tensor.index_select(dim, torch.as_tensor(index))
    return tensor


def _add(
    total: torch.Tensor,
    count: torch.Tensor,
    tensor: torch.Tensor,
    axes: list[tuple[Axis, PrunableLayer]],
    mask: Mask,
    entry_mask: Mask,
    entry_id: str,
) -> None:
    """Add one tensor of a neighbor to `total`, where both have the units, and count the values in `count`."""
    shape = list(total.shape)
    for axis, layer in axes:
        shape[axis.dim] = len(entry_mask[layer.name]) * axis.outer * axis.inner
    if list(tensor.shape) != shape:
        raise FormatError(
            f"entry {entry_id}: a tensor has shape {tuple(tensor.shape)}, but its mask asks for {tuple(shape)}"
        )
    target_indices, stored_indices = [torch.arange(n) for n in total.shape], [torch.arange(n) for n in tensor.shape]
    for axis, layer in axes:
        kept, entry_kept = mask[layer.name], entry_mask[layer.name]
        _, positions, entry_positions = np.intersect1d(kept, entry_kept, return_indices=True)
        target_indices[axis.dim] = torch.as_tensor(axis.indices(positions, len(kept)))
        stored_indices[axis.dim] = torch.as_tensor(axis.indices(entry_positions, len(entry_kept)))
    values = tensor[torch.meshgrid(*stored_indices, indexing="ij")].float() if tensor.ndim else tensor.float()
    where = torch.meshgrid(*target_indices, indexing="ij") if total.ndim else ()
    total[where] += values
    count[where] += 1.0

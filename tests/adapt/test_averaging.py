"""Averaging: entry by entry over the neighbors that hold it, against a slow reference."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_metaprune.adapt.averaging import average_weights
from hf_metaprune.errors import FormatError
from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.architectures.layers import Axis, Probe, PrunableLayer
from hf_metaprune.models.slicing import slice_state

# Two layers: a (4 units) feeds b (3 heads of width 2 in a fused projection with 2 parts).
LAYERS = [
    PrunableLayer("a", 4, (Axis("a.weight", 0), Axis("a.bias", 0), Axis("b.weight", 1)), Probe("a"), (), ()),
    PrunableLayer("b", 3, (Axis("b.weight", 0, 2, 2), Axis("c.weight", 1, 1, 2)), Probe("b"), (), ()),
]
SHAPES = {
    "a.weight": (4, 5),
    "a.bias": (4,),
    "b.weight": (12, 4),
    "c.weight": (2, 6),
    "stem": (3,),
    "head.weight": (2, 2),
}
SIZES = {"a": 4, "b": 3}


def state(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {n: torch.randn(s, generator=generator) for n, s in SHAPES.items()}
    return tensors | {"counter": torch.tensor(seed)}


class FakeFile:
    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors

    def keys(self) -> list[str]:
        return [f"network.{n}" for n in self.tensors]

    def get_tensor(self, name: str) -> torch.Tensor:
        return self.tensors[name.removeprefix("network.")]


class Neighbor:
    """What averaging needs of an entry."""

    def __init__(self, mask: Mask, seed: int, dtype: torch.dtype = torch.float32) -> None:
        self.id, self.mask, self.full = f"n{seed}", mask, state(seed)
        self.tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in self.full.items()}
        self.tensors = slice_state(self.tensors, LAYERS, mask)

    @contextmanager
    def open_weights(self):
        yield FakeFile(self.tensors)


def holders(neighbor: Neighbor, name: str, position: tuple[int, ...]) -> bool:
    """Whether a neighbor keeps every unit that one entry of the base's tensor belongs to."""
    a, b = set(neighbor.mask["a"].tolist()), set(neighbor.mask["b"].tolist())
    if name in ("a.weight", "a.bias"):
        return position[0] in a
    if name == "b.weight":
        return (position[0] // 2) % 3 in b and position[1] in a
    if name == "c.weight":
        return position[1] // 2 in b
    return True


def slow_average(neighbors: list[Neighbor], base: dict[str, torch.Tensor], mask: Mask) -> dict[str, torch.Tensor]:
    full = {}
    for name, shape in SHAPES.items():
        full[name] = torch.empty(shape)
        for position in product(*map(range, shape)):
            values = [n.full[name][position] for n in neighbors if holders(n, name, position)]
            full[name][position] = sum(values) / len(values) if values else base[name][position]
    return slice_state(full, LAYERS, mask)


@settings(max_examples=40)
@given(data=st.data(), n=st.integers(1, 4))
def test_average_equals_the_slow_reference(data: st.DataObject, n: int) -> None:
    masks = [
        Mask({k: sorted(data.draw(st.sets(st.integers(0, s - 1), min_size=1))) for k, s in SIZES.items()}, SIZES)
        for _ in range(n + 1)
    ]
    neighbors, base = [Neighbor(m, i) for i, m in enumerate(masks[1:])], state(99)
    average = average_weights(neighbors, masks[0], base, LAYERS)
    expected = slow_average(neighbors, base, masks[0])
    for name in SHAPES:
        assert torch.allclose(average[name], expected[name], atol=1e-6), name
    assert list(average) == [*SHAPES, "counter"]
    assert average["counter"] == base["counter"]


def test_one_neighbor_with_the_same_mask_is_copied() -> None:
    mask = Mask({"a": [0, 2], "b": [1]}, SIZES)
    one = Neighbor(mask, 5)
    average = average_weights([one], mask, state(99), LAYERS, skip=["head.weight"])
    assert "head.weight" not in average
    assert all(torch.equal(average[n], one.tensors[n]) for n in average if n != "counter")


def test_half_precision_neighbors_are_averaged_in_float32() -> None:
    mask = Mask.full(SIZES)
    neighbors = [Neighbor(mask, i, torch.float16) for i in range(3)]
    average = average_weights(neighbors, mask, state(99), LAYERS)["stem"]
    assert average.dtype == torch.float32
    assert torch.equal(average, torch.stack([n.tensors["stem"].float() for n in neighbors]).sum(0) / 3)


def test_tensors_that_do_not_fit_are_refused() -> None:
    mask = Mask.full(SIZES)
    wrong = Neighbor(mask, 1)
    wrong.tensors["a.weight"] = torch.zeros(3, 5)
    with pytest.raises(FormatError, match="n1.*shape"):
        average_weights([wrong], mask, state(99), LAYERS)
    del wrong.tensors["a.weight"]
    with pytest.raises(FormatError, match="no tensor a.weight"):
        average_weights([wrong], mask, state(99), LAYERS)


def test_indices_of_all_dimensions_are_taken() -> None:
    mask = Mask({"a": [3], "b": [0, 2]}, SIZES)
    sliced = slice_state({"b.weight": torch.arange(48).reshape(12, 4)}, LAYERS, mask)["b.weight"]
    assert np.array_equal(sliced[:, 0], torch.arange(48).reshape(12, 4)[[0, 1, 4, 5, 6, 7, 10, 11], 3])

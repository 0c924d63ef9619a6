"""The first weights of a trunk: which units matter, and what can be said by those that stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hf_metaprune.data.images import ImageSet
from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.architectures.layers import PrunableLayer
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.training.feature_teacher import feature_distance
from hf_metaprune.training.forward import extract_features
from hf_metaprune.trunk.reconstruction import contribution_order, reconstruct
from tests.tiny import make_base, make_mobile_base, make_vit_base, striped_images, tiny_preprocessing

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return ImageSet(*striped_images(6, 16, 0), tiny_preprocessing())


@pytest.fixture(params=[make_base, make_vit_base, make_mobile_base])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> BaseModel:
    return BaseModel.load(request.param(tmp_path))


def read_layer(base: BaseModel) -> PrunableLayer:
    """A layer whose units another one reads, in the middle of the network."""
    classifier = base.family.classifier_name(base.network)
    layers = [
        layer
        for layer in base.layers
        if any(axis.dim == 1 and not axis.tensor.startswith(classifier) for axis in layer.axes)
        and not any(axis.outer > 1 for axis in layer.axes)
    ]
    return layers[len(layers) // 2]


@torch.no_grad()
def copy_unit(base: BaseModel, layer: PrunableLayer, source: int, target: int) -> None:
    """Let a unit compute what another one does, which is read with other weights."""
    for axis in layer.axes:
        if axis.dim == 0:
            tensor = base.state[axis.tensor]
            places = (axis.indices(np.array([unit]), layer.size) for unit in (source, target))
            from_rows, to_rows = (torch.as_tensor(indices) for indices in places)
            tensor[to_rows] = tensor[from_rows]


@torch.no_grad()
def test_a_unit_that_nobody_reads_matters_least(base: BaseModel, images: ImageSet) -> None:
    layer = read_layer(base)
    first = contribution_order(base, images, CPU)[layer.name]
    assert sorted(first) == list(range(layer.size))
    for axis in layer.axes:
        if axis.dim == 1:
            base.state[axis.tensor][:, torch.as_tensor(axis.indices(first[:1], layer.size))] = 0
    changed = contribution_order(base, images, CPU)[layer.name].tolist()
    assert changed.index(first[0]) >= layer.size // 2  # beside those that are never active


def test_the_order_does_not_depend_on_how_units_and_weights_are_scaled(tmp_path: Path, images: ImageSet) -> None:
    """What reads a unit may have the factor that the unit lacks: a ReLU lets it through."""
    base = BaseModel.load(make_base(tmp_path))
    layer = next(layer for layer in base.layers if any(axis.dim == 1 for axis in layer.axes))
    before = contribution_order(base, images, CPU)[layer.name]
    with torch.no_grad():
        for axis in layer.gates:
            base.state[axis.tensor][before[-1]] *= 100
        for axis in layer.axes:
            if axis.dim == 1:
                base.state[axis.tensor][:, before[-1]] /= 100
    assert contribution_order(base, images, CPU)[layer.name].tolist() == before.tolist()


def test_what_another_unit_computes_is_not_lost(base: BaseModel, images: ImageSet) -> None:
    layer = read_layer(base)
    copy_unit(base, layer, 0, 1)
    kept = {name: np.arange(size) for name, size in base.sizes.items()} | {layer.name: np.delete(range(layer.size), 1)}
    mask = Mask(kept, base.sizes)
    target = extract_features(base.whole(["a", "b"]), images, CPU)
    sliced = base.slice(base.config(mask, ["a", "b"])).eval()
    raw = feature_distance(extract_features(sliced, images, CPU), target)
    sliced.network.load_state_dict(reconstruct(base, mask, images, CPU), strict=False)
    fitted = feature_distance(extract_features(sliced, images, CPU), target)
    assert fitted < 0.2 * raw
    assert raw > 1e-6


def test_what_is_fitted_depends_on_the_seed_alone(tmp_path: Path, images: ImageSet) -> None:
    base = BaseModel.load(make_base(tmp_path))
    mask = Mask.random(base.sizes, 0.5, seed=0)
    first, again = (reconstruct(base, mask, images, CPU, seed=3) for _ in range(2))
    assert all(first[name].equal(again[name]) for name in first)

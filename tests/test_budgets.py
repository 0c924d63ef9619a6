"""Budgets: what a sub-network costs is known without making it, and the largest that is allowed is found."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_metaprune.budgets import Budget, CostModel, largest, ratio_of
from hf_metaprune.errors import OptionError
from hf_metaprune.models.architecture import architecture_of
from hf_metaprune.models.base import BaseModel
from hf_metaprune.models.slicing import count_parameters
from hf_metaprune.scores import ScoreMask
from hf_metaprune.sizes import Order, Sizing
from hf_metaprune.training import count_flops
from tests.conftest import tiny_preprocessing
from tests.models.networks import network, random_masks

LABELS = ["a", "b", "c"]
IMAGE = torch.zeros(1, 3, 32, 32)
FAMILIES = ["resnet50d", "vit", "vit-layer-scale", "transformers-vit", "transformers-basic", "mobilenetv3-small"]


@cache
def base_of(name: str) -> BaseModel:
    net = network(name)
    family = architecture_of(net)
    return BaseModel(family.library, *described(name), "0" * 64, tiny_preprocessing(), net)


def described(name: str) -> tuple[str, dict]:
    net = network(name)
    architecture, args = architecture_of(net).describe(net)
    if name == "resnet50d":
        args = {"channels": [8, 12, 16, 20]}
    return architecture, args


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=6)
@given(data=st.data())
def test_costs_are_those_of_the_sliced_network(name: str, data: st.DataObject) -> None:
    base = base_of(name)
    costs = CostModel(base.whole(LABELS), IMAGE)
    mask = data.draw(random_masks(base.network))
    model = base.slice(base.config(mask, LABELS))
    counts = {layer: len(kept) for layer, kept in mask.items()}
    assert costs.params(counts) == count_parameters(model)
    assert costs.macs(counts) == count_flops(model, IMAGE)[0] // 2


def sizing(base: BaseModel, **options: object) -> Sizing:
    generator = torch.Generator().manual_seed(0)
    scores = ScoreMask({name: torch.rand(size, generator=generator).numpy() for name, size in base.sizes.items()})
    return Sizing(base.layers, Order.by_scores(scores), **options)


@pytest.mark.parametrize("split", ["layer", "global"])
@pytest.mark.parametrize("name", ["resnet50d", "vit"])
@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_the_largest_within_the_budget_is_found(name: str, split: str, share: float) -> None:
    base = base_of(name)
    costs, sizes = CostModel(base.whole(LABELS), IMAGE), sizing(base, split=split)
    everything = sizes.counts(0.0)
    least = costs.macs(sizes.counts(1.0))  # the stem, above all
    bound = round(least + share * (costs.macs(everything) - least))
    counts = largest(sizes, Budget(max_macs=bound), costs)
    assert costs.macs(counts) <= bound
    assert costs.macs(counts) - least > 0.97 * (bound - least)
    for layer in base.layers:  # not one unit more would fit
        if counts[layer.name] < layer.size:
            assert costs.macs(counts | {layer.name: counts[layer.name] + 1}) > bound
    if share == 1:
        assert counts == everything
        assert ratio_of(counts, base.layers) == 0.0


def test_all_bounds_hold_together() -> None:
    base = base_of("vit")
    costs, sizes = CostModel(base.whole(LABELS), IMAGE), sizing(base)
    full = sizes.counts(0.0)
    budget = Budget(costs.params(full) // 2, costs.macs(full) // 3, 5.0)
    counts = largest(sizes, budget, costs, lambda counts: sum(counts.values()) / 10)
    assert costs.params(counts) <= budget.max_params
    assert costs.macs(counts) <= budget.max_macs
    assert sum(counts.values()) <= 50


def test_a_budget_out_of_reach_names_the_smallest() -> None:
    base = base_of("resnet50d")
    costs, sizes = CostModel(base.whole(LABELS), IMAGE), sizing(base)
    least = costs.params(sizes.counts(1.0))
    with pytest.raises(OptionError, match=f"max_params=10: the smallest sub-network of this base has {least:,} param"):
        largest(sizes, Budget(max_params=10), costs)
    assert largest(sizes, Budget(max_params=least), costs) == sizes.counts(1.0)
    with pytest.raises(OptionError, match="rounded to 8"):
        largest(sizing(base, multiple=8), Budget(max_params=10), costs)


def test_a_budget_between_none_and_one_unit_a_layer_empties_some_layers() -> None:
    base = base_of("vit")
    costs, sizes = CostModel(base.whole(LABELS), IMAGE), sizing(base)
    none, one = sizes.counts(1.0), sizes.counts(1 - 1e-9)
    bound = (costs.macs(none) + costs.macs(one)) // 2
    counts = largest(sizes, Budget(max_macs=bound), costs)
    assert costs.macs(none) < costs.macs(counts) <= bound
    assert 0 < sum(not n for n in counts.values()) < len(counts)

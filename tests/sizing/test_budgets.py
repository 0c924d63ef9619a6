"""Budgets: what a sub-network costs is known without making it, and the largest that is allowed is found."""

from __future__ import annotations

import threading
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from hf_metaprune.errors import OptionError
from hf_metaprune.masks.mask import Mask, keep_count
from hf_metaprune.masks.scores import ScoreMask
from hf_metaprune.models.architectures.layers import Axis, Probe, PrunableLayer
from hf_metaprune.models.architectures.lookup import identify_architecture
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.models.slicing import count_parameters
from hf_metaprune.sizing import budgets
from hf_metaprune.sizing.budgets import Budget, largest_counts, removed_share
from hf_metaprune.sizing.cost_model import CostModel, count_flops
from hf_metaprune.sizing.order import Counts, Order, Sizing, layer_exceptions
from tests.models.networks import network, random_masks
from tests.tiny import tiny_preprocessing

LABELS = ["a", "b", "c"]
IMAGE = torch.zeros(1, 3, 32, 32)
FAMILIES = [
    "resnet26d", "vit", "vit-not-fused", "vit-layer-scale", "vit-no-bias", "deit-distilled", "transformers-vit",
    "transformers-basic", "mobilenetv3-small", "convnext",
]  # fmt: skip
MANY_LAYERS = {"resnet26d", "mobilenetv3-small", "convnext", "transformers-basic"}  # which take seconds each


@cache
def named_base(name: str) -> BaseModel:
    net = network(name)
    family = identify_architecture(net)
    return BaseModel(family.library, *described(name), "0" * 64, tiny_preprocessing(), net)


@cache
def named_cost_model(name: str, frozen_stem: bool = False) -> CostModel:
    base = named_base(name)
    return CostModel(base.config(Mask.random(base.sizes, 0.5, 1), LABELS), IMAGE, frozen_stem)


def described(name: str) -> tuple[str, dict]:
    net = network(name)
    architecture, args = identify_architecture(net).describe(net)
    if name == "resnet26d":
        args = {"channels": [8, 12, 16, 20]}
    return architecture, args


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in MANY_LAYERS)) for n in FAMILIES])
@settings(max_examples=4)
@given(data=st.data())
def test_costs_are_those_of_the_sliced_network(name: str, data: st.DataObject) -> None:
    base = named_base(name)
    mask, frozen = data.draw(random_masks(base.network)), data.draw(st.booleans())
    model = base.slice(base.config(mask, LABELS))
    counts = {layer: len(units) for layer, units in mask.items()}
    costs = named_cost_model(name, frozen)
    assert costs.params(counts) == count_parameters(model)
    sizes = {path: sum(p.numel() for p in m.parameters(recurse=False)) for path, m in model.network.named_modules()}
    assert costs.module_sizes(counts) == {path: size for path, size in sizes.items() if size}
    with torch.device("meta"):  # where no kernel saves memory by computing anew
        model, images = MetaPrunedForImageClassification(model.config), torch.zeros(2, 3, 32, 32)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model.eval()(images)
    assert costs.flops(counts) == forward.get_total_flops() / 2
    model.train()
    if frozen:
        model.freeze_stem()
    with FlopCounterMode(display=False) as training:
        model(images).logits.sum().backward()
    if any(
        getattr(module, "groups", 1) > 1 for module in model.modules()
    ):  # backward, the counter takes them for dense
        assert 2 * costs.flops(counts) < costs.training_flops(counts) < training.get_total_flops() / 2
    else:
        assert costs.training_flops(counts) == training.get_total_flops() / 2


def test_a_model_is_counted_by_what_it_keeps() -> None:
    base = named_base("vit")
    model = base.slice(base.config(Mask.random(base.sizes, 0.5, 0), LABELS))
    counts = {layer: len(units) for layer, units in model.mask().items()}
    for frozen in (False, True):
        costs = named_cost_model("vit", frozen)
        assert count_flops(model, IMAGE, frozen) == (costs.flops(counts), costs.training_flops(counts))


def sizing(base: BaseModel, **options: object) -> Sizing:
    generator = torch.Generator().manual_seed(0)
    scores = ScoreMask({name: torch.rand(size, generator=generator).numpy() for name, size in base.sizes.items()})
    return Sizing(base.layers, Order.from_scores(scores), **options)


@pytest.mark.parametrize("split", ["layer", "global"])
@pytest.mark.parametrize("name", ["resnet26d", "vit"])
@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_the_largest_within_the_budget_is_found(name: str, split: str, share: float) -> None:
    base = named_base(name)
    costs, sizes = named_cost_model(name), sizing(base, split=split)
    everything = sizes.counts(0.0)
    least = costs.macs(sizes.counts(1.0))  # the stem, above all
    bound = round(least + share * (costs.macs(everything) - least))
    counts = largest_counts(sizes, Budget(max_macs=bound), costs)
    assert costs.macs(counts) <= bound
    assert costs.macs(counts) - least > 0.97 * (bound - least)
    for layer in base.layers:  # not one unit more would fit
        if counts[layer.name] < layer.size:
            assert costs.macs(counts | {layer.name: counts[layer.name] + 1}) > bound
    if share == 1:
        assert counts == everything
        assert removed_share(counts, base.layers) == 0.0


def test_all_bounds_hold_together() -> None:
    base = named_base("vit")
    costs, sizes = named_cost_model("vit"), sizing(base)
    full = sizes.counts(0.0)
    budget = Budget(costs.params(full) // 2, costs.macs(full) // 3, 5.0)
    counts = largest_counts(sizes, budget, costs, lambda counts: sum(counts.values()) / 10)
    assert costs.params(counts) <= budget.max_params
    assert costs.macs(counts) <= budget.max_macs
    assert sum(counts.values()) <= 50


def test_a_budget_out_of_reach_names_the_smallest() -> None:
    base = named_base("resnet26d")
    costs, sizes = named_cost_model("resnet26d"), sizing(base)
    least = costs.params(sizes.counts(1.0))
    with pytest.raises(OptionError, match=f"max_params=10: the smallest sub-network of this base has {least:,} param"):
        largest_counts(sizes, Budget(max_params=10), costs)
    assert largest_counts(sizes, Budget(max_params=least), costs) == sizes.counts(1.0)
    with pytest.raises(OptionError, match=r"parameters, its widths rounded to 8, its layer_ratios as they are$"):
        exceptions = layer_exceptions(("layer1.*=0.5",), base.layers)
        largest_counts(sizing(base, multiple=8, exceptions=exceptions), Budget(max_params=10), costs)


def test_a_budget_between_none_and_one_unit_a_layer_empties_some_layers() -> None:
    base = named_base("vit")
    costs, sizes = named_cost_model("vit"), sizing(base)
    none, one = sizes.counts(1.0), sizes.counts(1 - 1e-9)
    bound = (costs.macs(none) + costs.macs(one)) // 2
    counts = largest_counts(sizes, Budget(max_macs=bound), costs)
    assert costs.macs(none) < costs.macs(counts) <= bound
    assert 0 < sum(not n for n in counts.values()) < len(counts)


def test_milliseconds_may_leave_some_branches_empty_and_not_all() -> None:
    """One unit in each layer is too many: those that fit are given back, one by one."""
    sizes = sizing(named_base("vit"))
    layers = len(sizes.layers)

    def milliseconds(counts: Counts) -> float:
        return float(sum(count > 0 for count in counts.values()))

    largest = largest_counts(sizes, Budget(max_latency_ms=layers - 1.5), named_cost_model("vit"), milliseconds)
    assert sum(count > 0 for count in largest.values()) == layers - 2


class PricedUnits:
    """Costs of a made-up network: so many parameters per unit of each layer."""

    def __init__(self, **prices: int) -> None:
        self.prices = prices

    def params(self, counts: Counts) -> int:
        return sum(self.prices[name] * count for name, count in counts.items())

    macs = params


def layer(name: str, size: int) -> PrunableLayer:
    return PrunableLayer(name, size, (Axis(f"{name}.weight", 0),), Probe(name), (), ())


@pytest.mark.parametrize(
    ("scores", "split", "prices", "budget", "expected"),
    [
        # of equal shares the next unit that scores higher comes first: b's 6 before a's 1
        ({"a": [9, 8, 1, 1], "b": [9, 7, 6, 5]}, "layer", {"a": 1, "b": 1}, 5, {"a": 2, "b": 3}),
        ({"a": [9, 8, 6, 5], "b": [9, 7, 1, 1]}, "layer", {"a": 1, "b": 1}, 5, {"a": 3, "b": 2}),
        # the smaller share comes first, whatever the scores: a at 2 of 3 before b at 6 of 8; x costs too much
        (
            {"x": [9, 9], "a": [9, 9, 1], "b": [9, 9, 9, 9, 9, 9, 5, 5]},
            "layer",
            {"x": 100, "a": 1, "b": 1},
            109,
            {"x": 1, "a": 3, "b": 6},
        ),
        # shares count, not units: a at 5 of 7 before b at 3 of 4
        (
            {"x": [9, 9], "a": [9, 9, 9, 9, 9, 1, 1], "b": [9, 9, 9, 5]},
            "layer",
            {"x": 100, "a": 1, "b": 1},
            109,
            {"x": 1, "a": 6, "b": 3},
        ),
        # where the split is global, the score comes first, whatever the shares: c's 4 at 1 of 2 before b's 3 at 1 of 4
        (
            {"a": [9, 8.5, 8, 7], "b": [5, 3, 2, 1], "c": [5, 4]},
            "global",
            {"a": 10, "b": 1, "c": 1},
            13,
            {"a": 1, "b": 1, "c": 2},
        ),
        # of equal scores the smaller share comes first: a's 3 and b's 3 before c's at the end
        (
            {"a": [4, 4, 3, 1], "b": [4, 3, 3, 2], "c": [3, 3, 2, 2, 2, 1]},
            "global",
            {"a": 2, "b": 1, "c": 7},
            14,
            {"a": 2, "b": 3, "c": 1},
        ),
    ],
)
def test_units_are_given_back_in_their_order(
    scores: dict[str, list[float]], split: str, prices: dict[str, int], budget: int, expected: Counts
) -> None:
    layers = [layer(name, len(values)) for name, values in scores.items()]
    sizes = Sizing(layers, Order.from_scores(ScoreMask(scores)), split=split)
    assert largest_counts(sizes, Budget(max_params=budget), PricedUnits(**prices)) == expected  # type: ignore[arg-type]


def give_units_back(sizing: Sizing, counts: Counts, fits: Callable[[Counts], bool]) -> Counts:
    """The rule in its own words: look at all layers for each unit."""
    open_layers = {layer.name: layer.size for layer in sizing.layers if layer.name not in sizing.exceptions}

    def place(name: str) -> tuple[object, ...]:
        unit = sizing.order.units[name][counts[name]]
        ties = 0.0 if sizing.order.ties is None else sizing.order.ties[name][unit]
        by_score = (-sizing.order.scores[name][unit], -ties)
        share = Fraction(counts[name], open_layers[name])
        return (*by_score, share, name) if sizing.split == "global" else (share, *by_score, name)

    while candidates := [name for name, size in open_layers.items() if counts[name] < size]:
        name = min(candidates, key=place)
        larger = counts | {name: min(open_layers[name], counts[name] + sizing.multiple)}
        if fits(larger):
            counts = larger
        else:
            del open_layers[name]
    return counts


def test_units_are_given_back_by_the_rule() -> None:
    """In 1,000 made-up networks, of small numbers, so that many scores, ties and shares are equal."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        sizes = {f"l{i}": int(rng.integers(1, 13)) for i in range(rng.integers(1, 5))}
        scores, ties = ({n: rng.integers(0, 5, size).astype(np.float32) for n, size in sizes.items()} for _ in range(2))
        sizing = Sizing(
            [layer(name, size) for name, size in sizes.items()],
            Order.from_scores(ScoreMask(scores), ties),
            split=rng.choice(["layer", "global"]),
            exceptions={"l0": 0.5} if rng.random() < 0.5 else {},
            multiple=int(rng.integers(1, 4)),
        )
        prices = PricedUnits(**{name: int(rng.integers(1, 10)) for name in sizes})
        counts = sizing.counts(rng.choice([1.0, 0.8, 0.5]))
        bound = prices.params(counts) + rng.integers(0, 61)

        def fits(larger: Counts, prices: PricedUnits = prices, bound: int = bound) -> bool:
            return prices.params(larger) <= bound

        assert budgets._add_units(sizing, counts, fits) == give_units_back(sizing, counts, fits)


def test_a_layer_whose_ratio_is_fixed_gets_no_unit_back() -> None:
    layers = [layer("a", 4), layer("b", 4)]
    order = Order.from_scores(ScoreMask({"a": [9, 8, 1, 1], "b": [9, 7, 6, 5]}))
    sizes = Sizing(layers, order, exceptions={"a": 0.5})
    prices = PricedUnits(a=1, b=2)
    assert largest_counts(sizes, Budget(max_params=7), prices) == {"a": 2, "b": 2}  # type: ignore[arg-type]


@pytest.mark.parametrize(("ties", "expected"), [([5, 1], {"a": 3, "b": 2}), ([1, 5], {"a": 2, "b": 3})])
def test_ties_decide_which_of_equal_units_is_given_back(ties: list[int], expected: Counts) -> None:
    layers = [layer("a", 4), layer("b", 4)]
    scores = ScoreMask({"a": [9, 8, 7, 6], "b": [9, 8, 7, 6]})
    tie_break = {"a": np.array([4, 4, ties[0], 0]), "b": np.array([4, 4, ties[1], 0])}
    order = Order.from_scores(scores, tie_break)
    sizes, prices = Sizing(layers, order), PricedUnits(a=1, b=1)
    assert largest_counts(sizes, Budget(max_params=5), prices) == expected  # type: ignore[arg-type]


def test_milliseconds_give_no_single_units_back() -> None:
    layers = [layer("a", 4), layer("b", 4)]
    sizes = Sizing(layers, Order.from_scores(ScoreMask({"a": [9, 8, 1, 1], "b": [9, 7, 6, 5]})))
    costs, budget = PricedUnits(a=1, b=1), Budget(max_latency_ms=5.0)
    assert largest_counts(sizes, budget, costs, costs.params) == {"a": 2, "b": 2}  # type: ignore[arg-type]


def test_a_budget_of_milliseconds_is_used_to_the_last_unit_of_a_wide_layer() -> None:
    sizes = Sizing([layer("a", 3072)], Order.from_scores(ScoreMask({"a": np.arange(3072.0)})))
    costs, budget = PricedUnits(a=1), Budget(max_latency_ms=3071.0)
    assert largest_counts(sizes, budget, costs, costs.params) == {"a": 3071}  # type: ignore[arg-type]


def test_costs_do_not_depend_on_other_threads(base: BaseModel) -> None:
    """A server counts the costs of one visitor's models while another visitor's are counted."""
    config = base.config(Mask.random(base.sizes, 0.5, 1), LABELS)
    counts = {name: keep_count(size, 0.9) for name, size in base.sizes.items()}
    alone = CostModel(config, IMAGE)
    stop = threading.Event()

    def count_others() -> None:
        while not stop.is_set():
            CostModel(config, IMAGE)

    thread = threading.Thread(target=count_others)
    thread.start()
    try:
        beside = [CostModel(config, IMAGE).macs(counts) for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    assert beside == [alone.macs(counts)] * 5

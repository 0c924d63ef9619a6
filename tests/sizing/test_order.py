"""Sizes of sub-networks: by one ratio, by ratios of layers, by scores over all layers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_metaprune.errors import BankError, OptionError
from hf_metaprune.masks.mask import Mask, keep_count
from hf_metaprune.masks.scores import ScoreMask, sum_scores
from hf_metaprune.models.architectures.layers import Axis, Branch, Probe, PrunableLayer
from hf_metaprune.sizing.order import Order, Sizing, layer_exceptions

LAYERS = [
    PrunableLayer("conv", 20, (Axis("conv.weight", 0),), Probe("conv"), (), ()),
    PrunableLayer("heads", 4, (Axis("qkv.weight", 0, 3, 8),), Probe("proj"), (), (), branch=Branch("heads", None, "n")),
    PrunableLayer("nodes", 30, (Axis("fc1.weight", 0),), Probe("fc2"), (), (), branch=Branch("nodes", None, "n")),
]
SIZES = {layer.name: layer.size for layer in LAYERS}


def scores(seed: int) -> ScoreMask:
    rng = np.random.default_rng(seed)
    return ScoreMask({name: rng.random(size) for name, size in SIZES.items()})


@given(st.integers(0, 50), st.floats(0.01, 0.99), st.sampled_from(["layer", "global"]), st.sampled_from([1, 4, 8]))
def test_a_larger_ratio_keeps_fewer_of_the_same_units(seed: int, ratio: float, split: str, multiple: int) -> None:
    order = Order.from_scores(scores(seed))
    sizing = Sizing(LAYERS, order, split=split, multiple=multiple)
    few, many = order.mask(sizing.counts(ratio)), order.mask(sizing.counts(ratio / 2))
    assert few <= many
    assert len(few["conv"]) >= 1


@given(st.integers(0, 50), st.floats(0.0, 1.0))
def test_scores_that_agree_with_a_mask_give_it_and_order_the_rest_as_before(seed: int, ratio: float) -> None:
    mask, score_mask = Mask.random(SIZES, ratio, seed), scores(seed)
    agreement = score_mask.reconciled(mask)
    assert Order.from_scores(agreement).mask({name: len(top) for name, top in mask.items()}) == mask
    for name, top in mask.items():
        for units in (top, np.setdiff1d(np.arange(SIZES[name]), top)):
            assert np.array_equal(np.argsort(agreement[name][units]), np.argsort(score_mask[name][units]))
        assert np.array_equal(agreement[name][top], score_mask[name][top])
    assert agreement.reconciled(mask) == agreement
    nothing = ScoreMask({name: np.zeros(size) for name, size in SIZES.items()})
    assert nothing.reconciled(mask) == ScoreMask.from_mask(mask)
    holed = ScoreMask({name: np.where(np.arange(SIZES[name]) % 3, values, 0) for name, values in score_mask.items()})
    assert Order.from_scores(holed.reconciled(mask)).mask({name: len(top) for name, top in mask.items()}) == mask


@given(st.integers(0, 50), st.floats(0.01, 0.99))
def test_a_global_ratio_keeps_the_units_that_score_highest_anywhere(seed: int, ratio: float) -> None:
    score_mask = scores(seed)
    order = Order.from_scores(score_mask)
    mask = order.mask(Sizing(LAYERS, order, split="global").counts(ratio))
    everything = np.concatenate([score_mask[name] for name in SIZES])
    total = round((1 - ratio) * len(everything))
    flags = np.concatenate([mask.to_bools()[name] for name in SIZES])
    assert total <= flags.sum() <= total + 1  # one more where the convolution would have none
    if flags.sum() == total and total:
        assert everything[flags].min() >= everything[~flags].max(initial=-1)


@given(st.integers(0, 50), st.integers(1, sum(SIZES.values()) - 1))
def test_what_breaks_ties_decides_between_layers_too(seed: int, total: int) -> None:
    score_mask, ties = ScoreMask.from_mask(Mask.random(SIZES, 0.5, seed)), scores(seed)
    order = Order.from_scores(score_mask, ties)
    mask = order.mask(Sizing(LAYERS, order, split="global").counts(1 - total / sum(SIZES.values())))
    second, shares = order.ties, [score_mask, order.ties]
    assert second is not None
    keys = [tuple(float(share[name][unit]) for share in shares) for name in SIZES for unit in range(SIZES[name])]
    flags = np.concatenate([mask.to_bools()[name] for name in SIZES])
    if flags.sum() == total:
        high, low = (sorted(key for key, flag in zip(keys, flags, strict=True) if flag == which) for which in (1, 0))
        assert high[0] >= low[-1]


def test_one_ratio_for_all_layers_is_that_of_the_masks() -> None:
    order = Order.from_scores(scores(0))
    assert Sizing(LAYERS, order).counts(0.9) == {name: keep_count(size, 0.9) for name, size in SIZES.items()}
    assert Sizing(LAYERS, order).counts(1.0) == {"conv": 1, "heads": 0, "nodes": 0}
    assert Sizing(LAYERS, order).counts(0.0) == SIZES
    assert Sizing(LAYERS, order, split="global").counts(1.0) == {"conv": 1, "heads": 0, "nodes": 0}


def test_ratios_of_single_layers_stand() -> None:
    order = Order.from_scores(scores(0))
    exceptions = layer_exceptions(["*=0.5", "heads=1", "conv=0"], LAYERS)
    for split in ("layer", "global"):
        assert Sizing(LAYERS, order, split, exceptions).counts(0.9) == {"conv": 20, "heads": 0, "nodes": 15}


@pytest.mark.parametrize("text", ["conv", "conv=", "=0.5", "conv=1.5", "conv=-1", "conv=nan", "fc=0.5"])
def test_ratios_that_cannot_be_used_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="layer_ratios"):
        layer_exceptions([text], LAYERS)


def test_widths_are_rounded_but_not_heads() -> None:
    sizing = Sizing(LAYERS, Order.from_scores(scores(0)), multiple=8)
    assert sizing.counts(0.6) == {"conv": 8, "heads": 2, "nodes": 16}
    assert sizing.counts(0.95) == {"conv": 8, "heads": 1, "nodes": 8}
    assert sizing.counts(0.0) == SIZES


def test_equal_scores_are_ordered_as_told() -> None:
    flat = ScoreMask({"l": [1, 0, 0, 1]})
    assert Order.from_scores(flat).units["l"].tolist() == [0, 3, 1, 2]
    assert Order.from_scores(flat, {"l": np.array([0.0, 1.0, 2.0, 3.0])}).units["l"].tolist() == [3, 0, 2, 1]


def test_scores_are_summed_after_they_are_made_comparable() -> None:
    one, other = ScoreMask({"a": [1, 3], "b": [10, 10]}), ScoreMask({"a": [30, 10], "b": [0, 0]})
    layered = sum_scores([one, other])
    assert layered["a"].tolist() == pytest.approx([1.0, 1.0])
    assert layered["b"].tolist() == pytest.approx([0.5, 0.5])
    plain = sum_scores([one, other], normalize="none")
    assert plain["a"].tolist() == pytest.approx([15.5, 6.5])
    weighted = sum_scores([one, other], vote_weights=[3, 1], normalize="none")
    assert weighted["a"].tolist() == pytest.approx([8.25, 4.75])
    overall = sum_scores([one], normalize="global")
    assert overall["a"].tolist() == pytest.approx([1 / 6, 3 / 6])


def test_an_entry_without_scores_says_what_it_keeps() -> None:
    mask = Mask({"a": [1], "b": []}, {"a": 3, "b": 2})
    assert ScoreMask.from_mask(mask)["a"].tolist() == [0, 1, 0]
    assert sum_scores([ScoreMask.from_mask(mask)])["b"].tolist() == [0, 0]  # no vote in a layer is no error


def test_scores_that_cannot_be_used_are_refused() -> None:
    for wrong in ([float("nan")], [float("inf")], [-1.0]):
        with pytest.raises(OptionError, match="layer a: scores must be finite"):
            ScoreMask({"a": wrong})
    with pytest.raises(OptionError, match="different networks"):
        sum_scores([ScoreMask({"a": [1]}), ScoreMask({"b": [1]})])
    with pytest.raises(BankError, match="no neighbor"):
        sum_scores([])
    with pytest.raises(OptionError, match="vote weights"):
        sum_scores([ScoreMask({"a": [1]})], vote_weights=[-1.0])
    with pytest.raises(OptionError, match="normalize"):
        ScoreMask({"a": [1]}).normalized("somehow")
    with pytest.raises(ValueError, match="read-only"):
        ScoreMask({"a": [1]})["a"][0] = 2

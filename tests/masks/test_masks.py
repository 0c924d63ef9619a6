"""Masks: sets of units, their algebra, and their packing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_metaprune.config import check_ratio
from hf_metaprune.errors import FormatError, OptionError
from hf_metaprune.masks.mask import Mask, keep_count
from hf_metaprune.masks.packing import pack_mask, unpack_mask


@st.composite
def flags(draw: st.DrawFn) -> dict[str, list[bool]]:
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    return {f"layer{i}": draw(st.lists(st.booleans(), min_size=n, max_size=n)) for i, n in enumerate(sizes)}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Mask, Mask]:
    first = draw(flags())
    second = {n: draw(st.lists(st.booleans(), min_size=len(f), max_size=len(f))) for n, f in first.items()}
    return Mask.from_bools(first), Mask.from_bools(second)


@given(flags())
def test_packing_loses_nothing(f: dict[str, list[bool]]) -> None:
    mask = Mask.from_bools(f)
    again = Mask.unpack(json.loads(json.dumps(mask.pack())))
    assert again == mask
    assert hash(again) == hash(mask)
    assert again.digest() == mask.digest()
    assert unpack_mask(pack_mask(mask), mask.sizes) == mask
    assert {n: list(b) for n, b in again.to_bools().items()} == f


@given(pairs())
def test_algebra_is_that_of_sets(pair: tuple[Mask, Mask]) -> None:
    a, b = pair
    for name in a:
        x, y = set(a[name].tolist()), set(b[name].tolist())
        assert set((a & b)[name].tolist()) == x & y
        assert set((a | b)[name].tolist()) == x | y
        assert set((a - b)[name].tolist()) == x - y
        assert set((~a)[name].tolist()) == set(range(a.sizes[name])) - x
        assert a.iou_per_layer(b)[name] == (len(x & y) / len(x | y) if x | y else 1.0)
    assert (a <= b) == all(set(a[n].tolist()) <= set(b[n].tolist()) for n in a)
    assert a.iou(b) == b.iou(a)
    assert (a == b) == (a.digest() == b.digest())


@given(pairs())
def test_positions_say_where_units_stand_in_a_larger_mask(pair: tuple[Mask, Mask]) -> None:
    inner, outer = pair[0], pair[0] | pair[1]
    for name, positions in inner.positions_in(outer).items():
        assert outer[name][positions].tolist() == inner[name].tolist()


def test_positions_in_a_mask_that_lacks_a_unit_are_refused() -> None:
    a, b = Mask({"l": [0, 2]}, {"l": 4}), Mask({"l": [0, 1]}, {"l": 4})
    with pytest.raises(OptionError, match="holds all its units"):
        a.positions_in(b)


@given(st.integers(1, 5000), st.floats(0.001, 0.999))
def test_keep_count_keeps_at_least_one_and_the_asked_share(size: int, ratio: float) -> None:
    n = keep_count(size, ratio)
    assert 1 <= n <= size
    assert abs(n - (1 - ratio) * size) <= 0.5 + 1e-6 or n == 1


@pytest.mark.parametrize(
    ("size", "ratio", "count"), [(64, 0.9, 6), (512, 0.9, 51), (25, 0.9, 2), (3, 0.9, 1), (10, 0.5, 5)]
)
def test_keep_count_examples(size: int, ratio: float, count: int) -> None:
    assert keep_count(size, ratio) == count


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_ratio_must_lie_between_0_and_1(ratio: float) -> None:
    with pytest.raises(OptionError, match="between 0 and 1"):
        check_ratio(ratio)


@pytest.mark.parametrize("units", [[0, 0], [-1], [4]])
def test_bad_indices_are_refused(units: list[int]) -> None:
    with pytest.raises(OptionError, match="different numbers from 0 to 3"):
        Mask({"l": units}, {"l": 4})


@pytest.mark.parametrize("units", [[0.7, 2.9], [True, False]])
def test_only_whole_numbers_are_units(units: list) -> None:
    with pytest.raises(OptionError, match="whole numbers"):
        Mask({"a": units}, {"a": 4})
    with pytest.raises(OptionError, match="fewer than 0"):
        Mask({"a": []}, {"a": -1})


def test_layers_that_differ_are_refused() -> None:
    with pytest.raises(OptionError, match="differ"):
        Mask({"a": [0]}, {"b": 4})
    with pytest.raises(OptionError, match="different networks"):
        Mask({"a": [0]}, {"a": 4}) & Mask({"a": [0]}, {"a": 5})


def test_masks_are_immutable_and_ordered() -> None:
    mask = Mask({"b": [3, 1], "a": [0]}, {"a": 2, "b": 5})
    assert list(mask) == ["a", "b"]
    assert mask["b"].tolist() == [1, 3]
    with pytest.raises(ValueError, match="read-only"):
        mask["b"][0] = 2
    assert (mask.n_kept, mask.n_units) == (3, 7)
    assert mask.ratio == pytest.approx(4 / 7)
    assert "3 of 7" in repr(mask)
    assert mask != "a mask"


def test_random_masks_follow_their_seed() -> None:
    sizes = {"a": 50, "b": 20}
    assert Mask.random(sizes, 0.9, 1) == Mask.random(sizes, 0.9, 1)
    assert Mask.random(sizes, 0.9, 1) != Mask.random(sizes, 0.9, 2)
    assert [len(k) for k in Mask.random(sizes, 0.9, 1).values()] == [5, 2]
    assert Mask.full(sizes).ratio == 0


GOOD = Mask({"l": [0, 9]}, {"l": 10}).pack()["l"]


@pytest.mark.parametrize(
    "layer",
    [
        {},
        None,
        GOOD | {"size": 9},  # padding bit set
        GOOD | {"size": 30},  # bitmap too short
        GOOD | {"size": -1},
        GOOD | {"size": 1 << 40},
        GOOD | {"size": True},
        GOOD | {"kept": 3},
        GOOD | {"kept": "2"},
        GOOD | {"bits": "no base64!"},
        GOOD | {"bits": None},
        GOOD | {"bits": "gAA="},  # a bit is gone
    ],
)
def test_malformed_packed_masks_are_refused(layer: object) -> None:
    with pytest.raises(FormatError, match="'l'"):
        Mask.unpack({"l": layer})  # type: ignore[dict-item]


def test_unpack_wants_a_mapping() -> None:
    with pytest.raises(FormatError, match="mapping"):
        Mask.unpack([1])  # type: ignore[arg-type]


def test_index_masks_of_wrong_length_or_padding_are_refused() -> None:
    packed = pack_mask(Mask({"l": [0]}, {"l": 5}))
    with pytest.raises(FormatError, match="does not fit"):
        unpack_mask(packed + b"\0", {"l": 5})
    with pytest.raises(FormatError, match="padding"):
        unpack_mask(np.packbits([1] * 8).tobytes(), {"l": 5})

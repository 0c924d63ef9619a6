"""Score masks: a real number for every unit of every prunable layer (SMSP). Nothing here knows a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import BankError, OptionError
from .mask import Mask

NORMALIZATIONS = ("layer", "global", "none")
LARGEST = 1e30
"""Of scores: sums of such are still numbers in float32."""


class ScoreMask(Mapping[str, np.ndarray]):
    """How much each unit of each layer matters, at least 0; a mask is its thresholding. Immutable.

    Reads as a mapping from a layer's name to float32 (units,), read-only, numbered as in the base model.

    Raises:
        OptionError: a score is not finite, below 0, or above `LARGEST`.
    """

    __slots__ = ("_scores",)

    def __init__(self, scores: Mapping[str, Any]) -> None:
        self._scores: dict[str, np.ndarray] = {}
        for name, values in scores.items():
            array = np.array(values, dtype=np.float32).reshape(-1)
            if not ((array >= 0) & (array <= LARGEST)).all():
                raise OptionError(f"layer {name}: scores must be finite numbers from 0 on, at most {LARGEST:g}")
            array.flags.writeable = False
            self._scores[name] = array

    @classmethod
    def from_mask(cls, mask: Mask) -> ScoreMask:
        """1 for every kept unit, 0 for the others: what an entry without scores has to say."""
        return cls(mask.to_bools())

    def __getitem__(self, layer: str) -> np.ndarray:
        return self._scores[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScoreMask):
            return NotImplemented
        return self.sizes == other.sizes and all(np.array_equal(self[name], other[name]) for name in self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ScoreMask({len(self)} layers, {sum(self.sizes.values())} units)"

    @property
    def sizes(self) -> dict[str, int]:
        """Unit counts by layer."""
        return {name: len(values) for name, values in self._scores.items()}

    def with_ones_for(self, sizes: Mapping[str, int]) -> ScoreMask:
        """The scores over the layers of `sizes`; in those that it lacks each unit has 1."""
        return ScoreMask({name: self[name] if name in self else np.ones(size) for name, size in sizes.items()})

    def reconciled(self, mask: Mask) -> ScoreMask:
        """The scores with those of pruned units scaled down, in layers where one is no lower than a kept unit's.

        A kept unit without a score gets the highest of the pruned ones, or, if those have none either, the layer's
        lowest; in a layer of zeros only, which says nothing, the mask speaks: 1 for what it keeps.
        """
        flags = mask.to_bools()
        return ScoreMask({name: _reconciled(values, flags[name]) for name, values in self._scores.items()})

    def normalized(self, over: str) -> ScoreMask:
        """Scores divided by their mean in each layer ("layer"), or in all ("global"), or as they are ("none").

        Where all are 0 they stay so.
        """
        if over not in NORMALIZATIONS:
            raise OptionError(f"normalize={over!r}: must be one of {', '.join(NORMALIZATIONS)}")
        if over == "none":
            return self
        everything = float(np.concatenate([*self._scores.values(), np.zeros(0, np.float32)]).mean(dtype=np.float64))
        means = {n: float(v.mean(dtype=np.float64)) if over == "layer" else everything for n, v in self._scores.items()}
        return ScoreMask({n: v / means[n] if means[n] > 0 else v for n, v in self._scores.items()})


def _reconciled(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    lowest, highest = values[kept].min(initial=np.inf), values[~kept].max(initial=0.0)
    if lowest > highest:
        return values
    floor = lowest or highest or (values[values > 0].min() if values.any() else 1.0)
    lowered = values * (0.999 * floor / highest) if highest else values
    return np.where(kept, np.maximum(values, floor), lowered)


def normalized_weights(voters: int, weights: Sequence[float] | None) -> np.ndarray:
    """Each voter's part of the vote, float64 (voters,): the same for all, or by weights; they sum to 1.

    Raises:
        OptionError: the weights cannot be used.
    """
    w = np.ones(voters) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (voters,) or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise OptionError("vote weights must be finite, at least 0, not all 0, and one for each neighbor")
    return w / w.sum()


def sum_scores(
    masks: Sequence[ScoreMask], weights: Sequence[float] | None = None, normalize: str = "layer"
) -> ScoreMask:
    """The neighbors' scores together (SMSP): each normalized, then their mean, weighted if `weights` are given.

    The paper sums them; a mean orders units alike.

    Raises:
        BankError: there is none. OptionError: they are of different networks, or the weights cannot be used.
    """
    if not masks:
        raise BankError("there is no neighbor to vote")
    if any(mask.sizes != masks[0].sizes for mask in masks):
        raise OptionError("the neighbors' score masks belong to different networks")
    shares, even = normalized_weights(len(masks), weights), [mask.normalized(normalize) for mask in masks]
    return ScoreMask(
        {name: sum(s * m[name].astype(np.float64) for s, m in zip(shares, even, strict=True)) for name in masks[0]}
    )

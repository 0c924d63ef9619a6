"""Score masks: one real number per unit of every prunable layer (SMSP). This module knows no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import BankError, OptionError
from .mask import Mask

NORMALIZATIONS = ("layer", "global", "none")
"""Values of the option ``normalize``: see `ScoreMask.normalized`."""
MAX_SCORE = 1e30
"""Largest score. Sums of such scores are still finite in float32."""


class ScoreMask(Mapping[str, np.ndarray]):
    """One score per unit, at least 0, which says how much the unit matters. A score mask cannot be changed.

    A score mask is a mapping from a layer's name to the scores of its units: float32 (units,), read-only, numbered as
    in the base model. A threshold on the scores gives a `Mask`.

    Args:
        scores: numbers from 0 to `MAX_SCORE`, (units,) by layer.

    Raises:
        OptionError: a score is not finite, below 0, or above `MAX_SCORE`.

    Example:
        >>> ScoreMask({"conv1": [0.5, 2.0, 0.0]})
        ScoreMask(1 layers, 3 units)
    """

    __slots__ = ("_scores",)

    def __init__(self, scores: Mapping[str, Any]) -> None:
        self._scores: dict[str, np.ndarray] = {}
        for name, values in scores.items():
            array = np.array(values, dtype=np.float32).reshape(-1)
            if not ((array >= 0) & (array <= MAX_SCORE)).all():
                raise OptionError(f"layer {name}: scores must be finite numbers from 0 on, at most {MAX_SCORE:g}")
            array.flags.writeable = False
            self._scores[name] = array

    @classmethod
    def from_mask(cls, mask: Mask) -> ScoreMask:
        """Return scores of 1 for every kept unit of a mask and 0 for the others.

        These scores stand in for an entry that has no scores of its own.

        Args:
            mask: the mask, over any layers.

        Returns:
            The scores, float32 (units,) by layer.

        Example:
            >>> ScoreMask.from_mask(Mask({"conv1": [0, 2]}, {"conv1": 4}))["conv1"]
            array([1., 0., 1., 0.], dtype=float32)
        """
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
        """Units of each layer, by name."""
        return {name: len(values) for name, values in self._scores.items()}

    def with_ones_for(self, sizes: Mapping[str, int]) -> ScoreMask:
        """Return these scores over the layers of `sizes`, with 1 per unit in layers that have no scores here.

        Args:
            sizes: units of each layer of the result, by name.
        """
        return ScoreMask({name: self[name] if name in self else np.ones(size) for name, size in sizes.items()})

    def reconciled(self, mask: Mask) -> ScoreMask:
        """Return scores in which every kept unit of a mask scores higher than every pruned one.

        Layers whose scores agree with the mask already stay as they are. In the other layers, the scores of pruned
        units are scaled down until they are below the lowest score of a kept unit. If a kept unit has the score 0, the
        kept units get at least the highest score of a pruned unit; if that is 0 too, at least the lowest positive score
        of the layer; and if there is none, 1.

        Args:
            mask: a mask of the same layers.
        """
        flags = mask.to_bools()
        return ScoreMask({name: _reconcile_layer(values, flags[name]) for name, values in self._scores.items()})

    def normalized(self, over: str) -> ScoreMask:
        """Return the scores divided by a mean; scores whose mean is 0 in float32 stay as they are.

        Args:
            over: "layer" divides by the mean of each layer, "global" by the mean of all layers together, and "none"
                divides by nothing.

        Raises:
            OptionError: `over` is another word.
        """
        if over not in NORMALIZATIONS:
            raise OptionError(f"normalize={over!r}: must be one of {', '.join(NORMALIZATIONS)}")
        if over == "none":
            return self
        total_mean = float(np.concatenate([*self._scores.values(), np.zeros(0, np.float32)]).mean(dtype=np.float64))
        means = {n: float(v.mean(dtype=np.float64)) if over == "layer" else total_mean for n, v in self._scores.items()}
        return ScoreMask({n: v / means[n] if np.float32(means[n]) > 0 else v for n, v in self._scores.items()})


def _reconcile_layer(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return one layer's scores, float32 (units,), made to agree with its flags, bool (units,)."""
    lowest, highest = values[kept].min(initial=np.inf), values[~kept].max(initial=0.0)
    if lowest > highest:
        return values
    floor = lowest or highest or (values[values > 0].min() if values.any() else 1.0)
    lowered_values = values * (0.999 * floor / highest) if highest else values
    return np.where(kept, np.maximum(values, floor), lowered_values)


def normalized_weights(voters: int, weights: Sequence[float] | None) -> np.ndarray:
    """Return each voter's share of the vote; the shares sum to 1.

    Args:
        voters: number of voters.
        weights: one weight per voter, at least 0; None: all voters count the same.

    Returns:
        The shares, float64 (voters,).

    Raises:
        OptionError: a weight is negative or not finite, all are 0, or their number is not that of the voters.
    """
    values = np.ones(voters) if weights is None else np.asarray(weights, dtype=np.float64)
    if values.shape != (voters,) or not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
        raise OptionError("vote weights must be finite, at least 0, not all 0, and one for each neighbor")
    return values / values.sum()


def sum_scores(
    masks: Sequence[ScoreMask], vote_weights: Sequence[float] | None = None, normalize: str = "layer"
) -> ScoreMask:
    """Return the mean of the neighbors' score masks, each normalized before (SMSP, arXiv 2307.04365).

    The paper sums the scores. A mean gives the same order of units.

    Args:
        masks: one score mask per neighbor, all of the same layers.
        vote_weights: one weight per neighbor, at least 0; None: all count the same.
        normalize: how each score mask is normalized: see `ScoreMask.normalized`.

    Raises:
        BankError: there is no score mask.
        OptionError: the score masks have different layers, or the weights cannot be used.

    Example:
        >>> total = sum_scores([ScoreMask({"conv1": [1, 3]}), ScoreMask({"conv1": [2, 2]})])
        >>> total["conv1"].tolist()
        [0.75, 1.25]
    """
    if not masks:
        raise BankError("there is no neighbor to vote")
    if any(mask.sizes != masks[0].sizes for mask in masks):
        raise OptionError("the neighbors' score masks belong to different networks")
    shares, normalized = normalized_weights(len(masks), vote_weights), [mask.normalized(normalize) for mask in masks]
    return ScoreMask(
        {
            name: sum(share * mask[name].astype(np.float64) for share, mask in zip(shares, normalized, strict=True))
            for name in masks[0]
        }
    )

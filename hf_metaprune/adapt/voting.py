"""The meta-vote, in which neighbors' masks vote for the units to keep (MVP, Section 4, Equation 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..config import check_ratio
from ..errors import BankError, OptionError
from ..masks.mask import Mask, keep_count
from ..masks.scores import normalized_weights


def count_votes(masks: Sequence[Mask], vote_weights: Sequence[float] | None = None) -> dict[str, np.ndarray]:
    """Count the neighbors that keep each unit (MVP, Equation 1: the counts in the exponents).

    Args:
        masks: one mask per neighbor, all of one base.
        vote_weights: one weight per neighbor, at least 0; None: all votes count the same. The weights are scaled, so
            that they sum to the number of neighbors.

    Returns:
        The votes for each unit: float64 (units,) by layer.

    Raises:
        BankError: there is no mask.
        OptionError: the masks belong to different networks, or the weights cannot be used.
    """
    if not masks:
        raise BankError("there is no neighbor to vote")
    if any(mask.sizes != masks[0].sizes for mask in masks):
        raise OptionError("the neighbors' masks belong to different networks")
    scaled_weights = len(masks) * normalized_weights(len(masks), vote_weights)
    counts = {name: np.zeros(size) for name, size in masks[0].sizes.items()}
    for mask, weight in zip(masks, scaled_weights, strict=True):
        for name, units in mask.items():
            counts[name][units] += weight
    return counts


def vote_probabilities(counts: np.ndarray, tau: float) -> np.ndarray:
    """Return the softmax of the votes divided by a temperature (MVP, Equation 1).

    Args:
        counts: the votes for each unit of a layer: float64 (units,).
        tau: the temperature, above 0.

    Returns:
        Probabilities that sum to 1: float64 (units,).

    Raises:
        OptionError: `tau` is not above 0.
    """
    if not tau > 0:
        raise OptionError(f"tau={tau}: the temperature of the vote must be above 0")
    logits = (counts - counts.max()) / tau
    p = np.exp(logits)
    return p / p.sum()


def draw_order(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw all units one after the other, each with probability softmax(logits) among the remaining units.

    The order of logits plus Gumbel noise has this distribution: the Gumbel top-k trick (Kool et al., 2019).

    Args:
        logits: float64 (units,).
        rng: the generator to draw from.

    Returns:
        Unit indices in the order in which they were drawn: int64 (units,).
    """
    keys = logits + rng.gumbel(size=len(logits))
    return np.argsort(-keys, kind="stable")


def vote_order(
    masks: Sequence[Mask],
    *,
    tau: float = 1.0,
    sample: bool = True,
    vote_weights: Sequence[float] | None = None,
    tie_break: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return the order in which units stay after one vote; the first units of each layer are a mask of any size.

    Args:
        masks: one mask per neighbor, all of one base.
        tau: temperature of the softmax; small values leave little to chance.
        sample: whether to draw units from Equation 1 without replacement; if not, they are ordered by their votes.
        vote_weights: one weight per neighbor, such as its similarity; None: all votes count the same.
        tie_break: scores (units,) by layer that order units of equal votes without sampling, the highest first; None:
            the lower index comes first.
        seed: seed of the draw; the same seed gives the same order.

    Returns:
        Unit indices from the first to stay to the last: int64 (units,) by layer.

    Raises:
        BankError: there is no mask.
        OptionError: the masks belong to different networks, or the weights or `tau` cannot be used.
    """
    counts, rng, order = count_votes(masks, vote_weights), np.random.default_rng(seed), {}
    for name, votes in counts.items():
        if sample:
            vote_probabilities(votes, tau)  # checks tau
            order[name] = draw_order(votes / tau, rng)
        else:
            tie_keys = -np.asarray(tie_break[name]) if tie_break is not None else np.arange(len(votes))
            order[name] = np.lexsort((tie_keys, -votes))
    return order


def vote(masks: Sequence[Mask], ratio: float, **options: Any) -> Mask:
    """Return the mask of a new task by a vote of its neighbors' masks (MVP, Algorithm 1, lines 2 and 3).

    Args:
        masks: one mask per neighbor, all of one base.
        ratio: share of units to remove, in (0, 1); `keep_count` units of each layer stay.
        options: the options of `vote_order`.

    Raises:
        BankError: there is no mask.
        OptionError: the ratio lies outside (0, 1), the masks belong to different networks, or an option cannot be used.

    Example:
        >>> sizes = {"conv1": 4}
        >>> masks = [Mask({"conv1": [0, 1]}, sizes), Mask({"conv1": [1, 2]}, sizes), Mask({"conv1": [1, 2]}, sizes)]
        >>> vote(masks, ratio=0.5, sample=False)["conv1"]
        array([1, 2])
    """
    check_ratio(ratio)
    order = vote_order(masks, **options)
    return Mask({n: units[: keep_count(len(units), ratio)] for n, units in order.items()}, masks[0].sizes)


def is_tied(counts: Mapping[str, np.ndarray], keep: Mapping[str, int]) -> bool:
    """Return whether votes alone do not decide which units stay.

    This is so if, in some layer, a unit that stays and a unit that is removed have the same number of votes.

    Args:
        counts: the votes or scores of each unit, (units,) by layer.
        keep: units to keep by layer.
    """
    for name, votes in counts.items():
        k, sorted_votes = keep[name], np.sort(votes)[::-1]
        if 0 < k < len(votes) and sorted_votes[k - 1] == sorted_votes[k]:
            return True
    return False


def vote_shares(mask: Mask, masks: Sequence[Mask], vote_weights: Sequence[float] | None = None) -> list[float]:
    """Return each neighbor's share of the votes for the units that stay.

    Args:
        mask: the units that stay.
        masks: one mask per neighbor.
        vote_weights: one weight per neighbor; None: all votes count the same.

    Returns:
        One share per neighbor. They sum to 1, or are all 0 if no neighbor keeps any of the units.
    """
    scaled_weights = np.ones(len(masks)) if vote_weights is None else np.asarray(vote_weights, dtype=np.float64)
    votes = scaled_weights * [sum(len(np.intersect1d(units, m[name])) for name, units in mask.items()) for m in masks]
    return (votes / max(votes.sum(), 1e-300)).tolist()


def agreement(mask: Mask, masks: Sequence[Mask]) -> dict[str, dict[int, int]]:
    """Return how many of the units that stay are kept by 0, 1, ... all of the neighbors, by layer.

    Args:
        mask: the units that stay.
        masks: one mask per neighbor.

    Returns:
        By layer, the number of units by the number of neighbors that keep them.
    """
    counts = count_votes(masks)
    units_by_votes = {}
    for name, units in mask.items():
        n_units = np.bincount(counts[name][units].round().astype(int), minlength=len(masks) + 1)
        units_by_votes[name] = {i: int(n) for i, n in enumerate(n_units)}
    return units_by_votes

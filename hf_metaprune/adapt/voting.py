"""Meta-vote: neighbors' masks vote for the units to keep (MVP, Section 4, Equation 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..config import check_ratio
from ..errors import BankError, OptionError
from ..masks.mask import Mask, keep_count
from ..masks.scores import normalized_weights


def count_votes(masks: Sequence[Mask], weights: Sequence[float] | None = None) -> dict[str, np.ndarray]:
    """How many neighbors keep each unit: float64 (units,) by layer, the exponents' counts of Equation 1.

    With `weights` (one a neighbor, at least 0), votes count by weight, scaled so that they still sum to the
    number of neighbors.

    Raises:
        BankError: there is no mask. OptionError: masks of different networks, or weights that cannot be used.
    """
    if not masks:
        raise BankError("there is no neighbor to vote")
    if any(mask.sizes != masks[0].sizes for mask in masks):
        raise OptionError("the neighbors' masks belong to different networks")
    w = len(masks) * normalized_weights(len(masks), weights)
    counts = {name: np.zeros(size) for name, size in masks[0].sizes.items()}
    for mask, weight in zip(masks, w, strict=True):
        for name, kept in mask.items():
            counts[name][kept] += weight
    return counts


def vote_probabilities(counts: np.ndarray, tau: float) -> np.ndarray:
    """Equation 1: softmax of the counts over `tau`; float64 (units,), sums to 1."""
    if not tau > 0:
        raise OptionError(f"tau={tau}: the temperature of the vote must be above 0")
    logits = (counts - counts.max()) / tau
    p = np.exp(logits)
    return p / p.sum()


def draw_order(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All indices, drawn one after the other with probability softmax(logits) among those left.

    By the Gumbel top-k trick (Kool et al., 2019): in the order of logits plus Gumbel noise.
    """
    keys = logits + rng.gumbel(size=len(logits))
    return np.argsort(-keys, kind="stable")


def vote_order(
    masks: Sequence[Mask],
    *,
    tau: float = 1.0,
    sample: bool = True,
    weights: Sequence[float] | None = None,
    tie_break: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """By layer, all units from the first to stay to the last: one vote, whose first k are a mask of any size.

    Args:
        masks: one of each neighbor, of one base.
        tau: temperature of the softmax; small values leave little to chance.
        sample: draw from Equation 1 without replacement; if False, units are ordered by their votes.
        weights: a weight for each neighbor's vote, such as its similarity.
        tie_break: scores (units,) by layer that order units of equal count when not sampling; else lower indices win.
        seed: of the draw; the same seed gives the same order.

    Raises:
        OptionError, BankError: see `count_votes`.
    """
    counts, rng, order = count_votes(masks, weights), np.random.default_rng(seed), {}
    for name, votes in counts.items():
        if sample:
            vote_probabilities(votes, tau)  # checks tau
            order[name] = draw_order(votes / tau, rng)
        else:
            second = -np.asarray(tie_break[name]) if tie_break is not None else np.arange(len(votes))
            order[name] = np.lexsort((second, -votes))
    return order


def vote(masks: Sequence[Mask], ratio: float, **options: Any) -> Mask:
    """The mask of a new task from its neighbors' masks (Algorithm 1, lines 2 and 3).

    Args:
        masks: one of each neighbor, of one base.
        ratio: share of units to remove; ``keep_count`` units of each layer stay.
        options: as of `vote_order`.

    Raises:
        OptionError, BankError: see `count_votes`; ratio outside (0, 1).
    """
    check_ratio(ratio)
    order = vote_order(masks, **options)
    return Mask({n: units[: keep_count(len(units), ratio)] for n, units in order.items()}, masks[0].sizes)


def is_tied(counts: Mapping[str, np.ndarray], keep: Mapping[str, int]) -> bool:
    """Whether, in some layer, the last unit with enough votes to stay has as many as the first that must go."""
    for name, votes in counts.items():
        k, order = keep[name], np.sort(votes)[::-1]
        if 0 < k < len(votes) and order[k - 1] == order[k]:
            return True
    return False


def vote_shares(mask: Mask, masks: Sequence[Mask], weights: Sequence[float] | None = None) -> list[float]:
    """For each neighbor, its share of all votes that were cast for the kept units; they sum to 1 (or are all 0)."""
    w = np.ones(len(masks)) if weights is None else np.asarray(weights, dtype=np.float64)
    votes = w * [sum(len(np.intersect1d(kept, m[name])) for name, kept in mask.items()) for m in masks]
    return (votes / max(votes.sum(), 1e-300)).tolist()


def agreement(mask: Mask, masks: Sequence[Mask]) -> dict[str, dict[int, int]]:
    """For each layer: how many kept units were held by 0, 1, ... all of the neighbors."""
    counts = count_votes(masks)
    table = {}
    for name, kept in mask.items():
        held = np.bincount(counts[name][kept].round().astype(int), minlength=len(masks) + 1)
        table[name] = {i: int(n) for i, n in enumerate(held)}
    return table

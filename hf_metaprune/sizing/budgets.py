"""Budgets of parameters, MACs and time, and the largest sub-network within a budget."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import OptionError
from ..models.architectures.layers import PrunableLayer
from .cost_model import CostModel
from .order import Counts, Sizing

BISECTION_STEPS = 40
"""Number of steps of the search for the smallest ratio within a budget."""


@dataclass(frozen=True)
class Budget:
    """Upper bounds on the costs of a sub-network; None stands for no bound.

    A budget is true if it has a bound.
    """

    max_params: int | None = None
    """Largest number of parameters."""
    max_macs: int | None = None
    """Largest number of MACs per image."""
    max_latency_ms: float | None = None
    """Longest time per image, in milliseconds."""

    def __bool__(self) -> bool:
        return any(bound is not None for bound in (self.max_params, self.max_macs, self.max_latency_ms))


def largest_counts(
    sizing: Sizing, budget: Budget, costs: CostModel, latency: Callable[[Counts], float] | None = None
) -> Counts:
    """Return the largest sizes within a budget.

    The search takes the smallest ratio that fits, and then gives back units one by one while they fit. With a
    `latency` it gives them back only to the smallest sub-network, because an estimate per unit would take long and is
    not that exact.

    Args:
        sizing: how a ratio becomes the sizes of layers.
        budget: the bounds.
        costs: parameters and MACs of sub-networks.
        latency: estimates the milliseconds per image of a sub-network; None ignores the bound of the time.

    Returns:
        Units to keep by layer.

    Raises:
        OptionError: the smallest sub-network has too many parameters or MACs; the message says how many.
    """
    bounds: list[tuple[float, Callable[[Counts], float]]] = []
    smallest = sizing.counts(1.0)
    for name, unit, bound, cost in (
        ("max_params", "parameters", budget.max_params, costs.params),
        ("max_macs", "MACs", budget.max_macs, costs.macs),
    ):
        if bound is None:
            continue
        if (smallest_cost := cost(smallest)) > bound:
            raise OptionError(
                f"{name}={bound:,}: the smallest sub-network of this base has {smallest_cost:,} {unit}"
                f"{sizing.limits_text}"
            )
        bounds.append((bound, cost))
    if budget.max_latency_ms is not None and latency is not None:  # an estimate: too little to raise an error for
        bounds.append((budget.max_latency_ms, latency))

    def fits(counts: Counts) -> bool:
        return all(cost(counts) <= bound for bound, cost in bounds)

    if fits(all_units := sizing.counts(0.0)):
        return all_units
    too_small, large_enough, best = 0.0, 1.0, smallest  # ratios
    for _ in range(BISECTION_STEPS):
        middle = (too_small + large_enough) / 2
        counts = sizing.counts(middle)
        if fits(counts):
            large_enough, best = middle, counts
        else:
            too_small = middle
    if latency is not None and best != smallest:
        return best
    return _add_units(sizing, best, fits)


def _add_units(sizing: Sizing, counts: Counts, fits: Callable[[Counts], bool]) -> Counts:
    """Return larger counts, with units added one after the other while they fit.

    A ratio alone cannot use up a budget, because all layers of one size change at the same ratio. The next unit comes
    from the layer that keeps the smallest share of its units; of several such layers, from the one whose next unit
    scores highest. If the split is global, the score decides first.
    """
    counts, queue = dict(counts), list[tuple[tuple[float, ...], str]]()
    values = {name: -sizing.order.values(name) for name in counts}

    def enqueue(name: str) -> None:
        count, size = counts[name], len(sizing.order.units[name])
        if count < size:
            share, scores = (count / size,), tuple(values[name][:, count].tolist())
            heapq.heappush(queue, (scores + share if sizing.split == "global" else share + scores, name))

    steps = {layer.name: sizing.step(layer) for layer in sizing.layers if layer.name not in sizing.exceptions}
    for name in steps:
        enqueue(name)
    while queue:
        _, name = heapq.heappop(queue)
        larger = counts | {name: min(len(sizing.order.units[name]), counts[name] + steps[name])}
        if fits(larger):
            counts = larger
            enqueue(name)
    return counts


def removed_share(counts: Mapping[str, int], layers: Sequence[PrunableLayer]) -> float:
    """Return the share of all units of the layers that is removed, in [0, 1].

    Args:
        counts: units to keep by layer.
        layers: the layers before pruning.
    """
    return 1.0 - sum(counts.values()) / max(1, sum(layer.size for layer in layers))

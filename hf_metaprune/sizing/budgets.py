"""Budgets: the largest sub-network that they allow."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import OptionError
from ..models.architectures.architecture import PrunableLayer
from .cost_model import CostModel
from .order import Counts, Sizing

STEPS = 40  # of the bisection of a ratio


@dataclass(frozen=True)
class Budget:
    """Upper bounds of what a sub-network may cost; None: no bound."""

    max_params: int | None = None
    max_macs: int | None = None
    max_latency_ms: float | None = None

    def __bool__(self) -> bool:
        return any(bound is not None for bound in (self.max_params, self.max_macs, self.max_latency_ms))


def largest(
    sizing: Sizing, budget: Budget, costs: CostModel, latency: Callable[[Counts], float] | None = None
) -> Counts:
    """The sizes that a budget allows: those of the smallest ratio that fits, and then what else fits, unit by unit.

    Args:
        latency: milliseconds of a sub-network of given sizes, as the search is to see them.

    Raises:
        OptionError: not even the smallest sub-network is within the budget; the message says what it costs.
    """
    bounds: list[tuple[float, Callable[[Counts], float]]] = []
    smallest = sizing.counts(1.0)
    for name, unit, bound, cost in (
        ("max_params", "parameters", budget.max_params, costs.params),
        ("max_macs", "MACs", budget.max_macs, costs.macs),
    ):
        if bound is None:
            continue
        if (least := cost(smallest)) > bound:
            limits = sizing.limits
            raise OptionError(f"{name}={bound:,}: the smallest sub-network of this base has {least:,} {unit}{limits}")
        bounds.append((bound, cost))
    if budget.max_latency_ms is not None and latency is not None:  # a guess: whoever measures refuses
        bounds.append((budget.max_latency_ms, latency))

    def fits(counts: Counts) -> bool:
        return all(cost(counts) <= bound for bound, cost in bounds)

    low, high, best = 0.0, 1.0, smallest  # the ratio is too small, and large enough
    if fits(everything := sizing.counts(0.0)):
        return everything
    for _ in range(STEPS):
        middle = (low + high) / 2
        counts = sizing.counts(middle)
        if fits(counts):
            high, best = middle, counts
        else:
            low = middle
    if latency is not None and best != smallest:  # a guess for each unit would take long, and is not that exact
        return best
    return _filled(sizing, best, fits)


def _filled(sizing: Sizing, counts: Counts, fits: Callable[[Counts], bool]) -> Counts:
    """Give back units, one after the other, while they fit: at one ratio all layers of a size change at once.

    Next comes the layer that keeps the smallest share of its units, of equal ones that whose next unit scores highest;
    where the split is global, scores come first.
    """
    counts, waiting = dict(counts), list[tuple[tuple[float, ...], str]]()
    values = {name: -sizing.order.values(name) for name in counts}

    def queue(name: str) -> None:
        kept, size = counts[name], len(sizing.order.units[name])
        if kept < size:
            share, scores = (kept / size,), tuple(values[name][:, kept].tolist())
            heapq.heappush(waiting, (scores + share if sizing.split == "global" else share + scores, name))

    steps = {layer.name: sizing.step(layer) for layer in sizing.layers if layer.name not in sizing.exceptions}
    for name in steps:
        queue(name)
    while waiting:
        _, name = heapq.heappop(waiting)
        more = counts | {name: min(len(sizing.order.units[name]), counts[name] + steps[name])}
        if fits(more):
            counts = more
            queue(name)
    return counts


def removed_share(counts: Mapping[str, int], layers: Sequence[PrunableLayer]) -> float:
    """The share of all units that is gone."""
    return 1.0 - sum(counts.values()) / max(1, sum(layer.size for layer in layers))

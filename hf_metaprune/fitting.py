"""From an order of units to the mask of one sub-network: by a ratio, or within a budget."""

from __future__ import annotations

import functools
import operator
from functools import partial

from .budgets import Budget, CostModel, largest, ratio_of
from .latency import LatencyTable
from .masks import Mask
from .sizes import Counts, Order, Sizing, layer_exceptions
from .strategies import VOTED, Start

LATENCY_TRIES = 6
NEAR, MARGIN = 0.9, 1.03
"""How much of a time budget is enough, and how much more than measured a sub-network is taken to need."""


def cut(start: Start, order: Order, budget: Budget, ratio: float, notes: list[str]) -> tuple[Mask, float]:
    """The mask, and the ratio that it is called by; what the user should know is added to `notes`.

    Raises:
        OptionError: the budget is out of reach.
    """
    o, layers = start.options, start.layers
    sizing = Sizing(layers, order, o.split, layer_exceptions(o.layer_ratios, layers), o.round_to)
    plain = o.split == "layer" and not o.layer_ratios and o.round_to == 1
    if budget:
        counts, ratio, plain = _within(start, sizing, budget), 0.0, False
    else:
        counts = sizing.counts(ratio)
    mask = order.mask(counts)
    if start.options.strategy in VOTED:
        _note_unheld(start, mask, notes)
    return mask, ratio if plain else round(ratio_of(counts, layers), 4)


def _within(start: Start, sizing: Sizing, budget: Budget) -> Counts:
    """The largest sizes within a budget; milliseconds are guessed by a table in the search, and measured in the end."""
    costs = CostModel(start.base.whole(start.task.labels, start.options.prune_stem), start.images.images[:1])
    if budget.max_latency_ms is None:
        return largest(sizing, budget, costs)[0]
    table, bound, scale = LatencyTable(start, sizing), budget.max_latency_ms, 1.0
    table.check_reach(bound)
    best = sizing.counts(1.0)
    for _ in range(LATENCY_TRIES):
        counts = largest(sizing, budget, costs, partial(_scaled, table, scale))[0]
        found = table.measure(counts)
        if found <= bound and costs.macs(counts) >= costs.macs(best):
            best = counts
        if NEAR * bound <= found <= bound:
            break
        scale = MARGIN * found / table(counts)
    return best


def _scaled(table: LatencyTable, scale: float, counts: Counts) -> float:
    return scale * table(counts)


def _note_unheld(start: Start, mask: Mask, notes: list[str]) -> None:
    """Say how many units are kept that no neighbour has."""
    held = functools.reduce(operator.or_, start.masks)
    unheld = (mask - held).n_kept
    if unheld:
        notes.append(
            f"{unheld} of the {mask.n_kept} units that stay are held by no neighbour: "
            "they start with the base's weights"
        )

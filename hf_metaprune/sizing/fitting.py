"""From an order of units to the mask of one sub-network: by a ratio, or within a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ..config import AdaptOptions
from ..errors import OptionError
from ..masks.mask import Mask
from ..masks.scores import ScoreMask
from .budgets import Budget, largest_counts, removed_share
from .cost_model import task_cost_model
from .inputs import AdaptInputs
from .latency import LatencyTable
from .order import Counts, Order, Sizing, layer_exceptions

Note = Callable[[str], None]
"""A function that takes a sentence for the user."""

LATENCY_TRIES = 6
"""Largest number of sub-networks that are measured to find one within a time budget."""
NOTED_DIFFERENCE = 0.02
"""Difference of the removed share from which on the user is told that rounding changed it."""
TARGET_SHARE = 0.95
"""Share of a time budget that is aimed at, because a second measurement may take some hundredths longer."""
NEAR_ENOUGH = 0.9
"""Share of the aimed-at time from which on a sub-network is large enough."""
SAFETY_FACTOR = 1.03
"""Factor by which estimated times are raised above the measured ones, so that the next try is within the bound."""


def make_budget(options: AdaptOptions) -> Budget:
    """Return the budget that the options set; it is false if they set none."""
    return Budget(options.max_params, options.max_macs, options.max_latency_ms)


def check_bounds(options: AdaptOptions) -> None:
    """Check that the options set a ratio or a budget, but not both.

    Raises:
        OptionError: they set both.
    """
    if make_budget(options) and options.ratio is not None:
        raise OptionError(f"ratio={options.ratio} and a budget: pass one of them")


def is_even(options: AdaptOptions) -> bool:
    """Return whether the ratio alone decides how many units each layer keeps."""
    has_other_sizes = options.layer_ratios or options.round_to > 1 or make_budget(options)
    return options.split == "layer" and not has_other_sizes


def make_sizing(inputs: AdaptInputs, order: Order) -> Sizing:
    """Return the rule that the options set for sizes.

    Args:
        inputs: the options and the layers.
        order: the order in which units stay.

    Raises:
        OptionError: ``layer_ratios`` are malformed, or name no layer.
    """
    o, layers = inputs.options, inputs.layers
    return Sizing(layers, order, o.split, layer_exceptions(o.layer_ratios, layers), o.round_to)


def check_reachable(inputs: AdaptInputs) -> None:
    """Check, before any vote, that the base has a sub-network within the budget.

    Raises:
        OptionError: it has none; the message says what the smallest one costs.
    """
    layers, budget = inputs.layers, make_budget(inputs.options)
    if not budget:
        return
    order = Order.from_scores(ScoreMask({layer.name: [1.0] * layer.size for layer in layers}))
    sizing = make_sizing(inputs, order)
    costs = task_cost_model(inputs)
    try:
        largest_counts(sizing, replace(budget, max_latency_ms=None), costs)
        if budget.max_latency_ms is not None:
            LatencyTable(inputs, sizing, ratios=()).check_reachable(budget.max_latency_ms)
    except OptionError as error:
        if inputs.options.prune_stem or not inputs.base.family.stem_layers(inputs.base.network):
            raise
        raise OptionError(f"{error}; prune_stem=True (--prune-stem) allows smaller ones") from error


def select_mask(inputs: AdaptInputs, order: Order, ratio: float | None, note: Note) -> tuple[Mask, float]:
    """Return the mask of the units that stay, and its ratio.

    Args:
        inputs: the base, the task and the options.
        order: the order in which units stay.
        ratio: share of units to remove; it is ignored if the options set a budget.
        note: receives sentences for the user about the sizes.

    Returns:
        The mask, and the share of units that it removes: `ratio` itself if it alone decides the sizes, and the measured
        share if not.

    Raises:
        OptionError: the budget is out of reach.
    """
    o, layers, budget = inputs.options, inputs.layers, make_budget(inputs.options)
    sizing = make_sizing(inputs, order)
    if budget:
        counts = _counts_within(inputs, sizing, budget, note)
    else:
        assert ratio is not None
        counts = sizing.counts(ratio)
        _note_rounding(sizing, ratio, counts, note)
    mask = order.mask(counts)
    empty = [layer.name for layer in layers if not counts[layer.name] and layer.name not in sizing.exceptions]
    if empty:
        note(f"{len(empty)} of {len(layers)} layers keep no unit, such as {empty[0]}; a larger model may do better")
    return mask, ratio if ratio is not None and is_even(o) else round(removed_share(counts, layers), 4)


def _counts_within(inputs: AdaptInputs, sizing: Sizing, budget: Budget, note: Note) -> Counts:
    """Return the largest sizes within a budget.

    A search with estimated times proposes sizes, whose time is then measured. The ratio of both corrects the estimates
    of the next search.
    """
    costs = task_cost_model(inputs)
    if budget.max_latency_ms is None:
        return largest_counts(sizing, budget, costs)
    table, bound, scale = LatencyTable(inputs, sizing), TARGET_SHARE * budget.max_latency_ms, 1.0
    budget = replace(budget, max_latency_ms=bound)
    best = smallest = sizing.counts(1.0)
    for _ in range(LATENCY_TRIES):
        counts = largest_counts(sizing, budget, costs, partial(_scaled_estimate, table, scale))
        measured_ms = table.measure(counts)
        if measured_ms <= bound and costs.macs(counts) >= costs.macs(best):
            best = counts
        if NEAR_ENOUGH * bound <= measured_ms <= bound:
            break
        scale = SAFETY_FACTOR * measured_ms / table(counts)
    if best == smallest:
        note(
            f"the smallest size was taken, because no larger size that was tried took {bound:.3g} ms "
            f"({TARGET_SHARE:.0%} of the bound) or less"
        )
    return best


def _scaled_estimate(table: LatencyTable, scale: float, counts: Counts) -> float:
    return scale * table(counts)


def _note_rounding(sizing: Sizing, ratio: float, counts: Counts, note: Note) -> None:
    """Tell the user if rounded sizes remove another share of the units than the ratio."""
    if sizing.multiple == 1:
        return
    unrounded_counts = replace(sizing, multiple=1).counts(ratio)
    removed, removed_unrounded = removed_share(counts, sizing.layers), removed_share(unrounded_counts, sizing.layers)
    if abs(removed - removed_unrounded) > NOTED_DIFFERENCE:
        note(
            f"round_to={sizing.multiple} removes {removed:.0%} of the units, "
            f"where the ratio alone would remove {removed_unrounded:.0%}"
        )

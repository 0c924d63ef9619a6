"""From an order of units to the mask of one sub-network: by a ratio, or within a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ..config import AdaptOptions
from ..errors import OptionError
from ..masks.mask import Mask
from ..masks.scores import ScoreMask
from .budgets import Budget, largest, removed_share
from .cost_model import CostModel, get_cost_model
from .inputs import AdaptInputs
from .latency import LatencyTable
from .order import Counts, Order, Sizing, layer_exceptions

Note = Callable[[str], None]
"""Takes a sentence for the user."""

LATENCY_TRIES = 6
ROUNDED_MUCH = 0.02
"""From which difference on rounding is told."""
CLOCK = 0.95
"""The part of a time budget that is aimed at: measured again, the same network may take some hundredths more."""
NEAR, MARGIN = 0.9, 1.03
"""How much of that is enough, and how much more than measured a sub-network is taken to need."""


def make_budget(options: AdaptOptions) -> Budget:
    """The bounds that the options name."""
    return Budget(options.max_params, options.max_macs, options.max_latency_ms)


def check_bounds(options: AdaptOptions) -> None:
    """Refuse a ratio beside a budget.

    Raises:
        OptionError: there are both.
    """
    if make_budget(options) and options.ratio is not None:
        raise OptionError(f"ratio={options.ratio} and a budget: pass one of them")


def is_even(options: AdaptOptions) -> bool:
    """Whether every layer keeps the share that the ratio says."""
    others = options.layer_ratios or options.round_to > 1 or make_budget(options)
    return options.split == "layer" and not others


def task_cost_model(inputs: AdaptInputs) -> CostModel:
    """What sub-networks of the base cost, for the task's labels and images."""
    config = inputs.base.config(Mask.full(inputs.sizes), inputs.task.labels)
    return get_cost_model(config, inputs.images.images[:1])


def make_sizing(inputs: AdaptInputs, order: Order) -> Sizing:
    """How sizes are chosen by the options."""
    o, layers = inputs.options, inputs.layers
    return Sizing(layers, order, o.split, layer_exceptions(o.layer_ratios, layers), o.round_to)


def check_reachable(inputs: AdaptInputs) -> None:
    """Refuse a budget that no sub-network of the base can meet; no vote is needed to know.

    Raises:
        OptionError: says what the smallest one costs.
    """
    layers, budget = inputs.layers, make_budget(inputs.options)
    if not budget:
        return
    order = Order.by_scores(ScoreMask({layer.name: [1.0] * layer.size for layer in layers}))
    sizing = make_sizing(inputs, order)
    costs = task_cost_model(inputs)
    try:
        largest(sizing, replace(budget, max_latency_ms=None), costs)
        if budget.max_latency_ms is not None:
            LatencyTable(inputs, sizing, ratios=()).check_reachable(budget.max_latency_ms)
    except OptionError as error:
        if inputs.options.prune_stem or not inputs.base.family.stem_layers(inputs.base.network):
            raise
        raise OptionError(f"{error}; prune_stem=True (--prune-stem) allows smaller ones") from error


def select_mask(inputs: AdaptInputs, order: Order, ratio: float | None, note: Note) -> tuple[Mask, float]:
    """The mask, and the ratio that it is called by; `note` is told what the user should know.

    Args:
        ratio: of units to remove; of no account where there is a budget.

    Raises:
        OptionError: the budget is out of reach.
    """
    o, layers, budget = inputs.options, inputs.layers, make_budget(inputs.options)
    sizing = make_sizing(inputs, order)
    if budget:
        counts = _within(inputs, sizing, budget, note)
    else:
        assert ratio is not None
        counts = sizing.counts(ratio)
        _note_rounding(sizing, ratio, counts, note)
    mask = order.mask(counts)
    empty = [layer.name for layer in layers if not counts[layer.name] and layer.name not in sizing.exceptions]
    if empty:
        note(f"{len(empty)} of {len(layers)} layers keep no unit, such as {empty[0]}: larger sizes do better")
    return mask, ratio if ratio is not None and is_even(o) else round(removed_share(counts, layers), 4)


def _within(inputs: AdaptInputs, sizing: Sizing, budget: Budget, note: Note) -> Counts:
    """The largest sizes within a budget; milliseconds are guessed by a table in the search, and measured in the end."""
    costs = task_cost_model(inputs)
    if budget.max_latency_ms is None:
        return largest(sizing, budget, costs)
    table, bound, scale = LatencyTable(inputs, sizing), CLOCK * budget.max_latency_ms, 1.0
    budget = replace(budget, max_latency_ms=bound)
    best = smallest = sizing.counts(1.0)
    for _ in range(LATENCY_TRIES):
        counts = largest(sizing, budget, costs, partial(_scaled, table, scale))
        found = table.measure(counts)
        if found <= bound and costs.macs(counts) >= costs.macs(best):
            best = counts
        if NEAR * bound <= found <= bound:
            break
        scale = MARGIN * found / table(counts)
    if best == smallest:
        note(
            f"the smallest size was taken: none of the others that were tried took {bound:.3g} ms ({CLOCK:.0%} of the "
            "bound) or less"
        )
    return best


def _scaled(table: LatencyTable, scale: float, counts: Counts) -> float:
    return scale * table(counts)


def _note_rounding(sizing: Sizing, ratio: float, counts: Counts, note: Note) -> None:
    """Say if rounded widths remove another share than was asked for."""
    if sizing.multiple == 1:
        return
    plain = replace(sizing, multiple=1).counts(ratio)
    removed, asked = removed_share(counts, sizing.layers), removed_share(plain, sizing.layers)
    if abs(removed - asked) > ROUNDED_MUCH:
        note(
            f"round_to={sizing.multiple} removes {removed:.0%} of the units, "
            f"where the ratio alone would remove {asked:.0%}"
        )

"""What one vote has settled, and what models of any size would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from ..config import OPTIMIZERS, SIZES, AdaptOptions, TrainingOptions, override
from ..data.task import TaskData
from ..errors import OptionError
from ..masks.mask import Mask
from ..similarity import Neighbour
from ..sizing.cost_model import CostModel
from ..sizing.fitting import check_bounds, cost_model, sizing_of
from ..sizing.sizes import Order
from .recipes import rate_at, recipe
from .strategies import Start

BOUNDS = ("ratio", "max_params", "max_macs", "max_latency_ms")


@dataclass
class Plan:
    """The neighbours of a task and their vote: from here on models of any size can be made (`MetaPruner.make`)."""

    data: TaskData
    options: AdaptOptions
    training: TrainingOptions
    start: Start
    order: Order
    retrieval_flops: int
    notes: list[str]
    phases: dict[str, float]
    energy: dict[str, float] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    """What the user has set."""

    @property
    def neighbours(self) -> Sequence[Neighbour]:
        """The entries that voted, nearest first."""
        return self.start.neighbours

    @property
    def runners_up(self) -> Sequence[Neighbour]:
        """The entries that were looked at, too, but did not vote, nearest first."""
        return self.start.runners_up

    def mask(self, ratio: float) -> Mask:
        """The units that stay at a ratio."""
        return self.order.mask(sizing_of(self.start, self.order).counts(ratio))

    def cost(self, ratio: float) -> tuple[int, int]:
        """Parameters, and MACs of an image, of a model at a ratio; exact, without making it."""
        counts = sizing_of(self.start, self.order).counts(ratio)
        return self._costs.params(counts), self._costs.macs(counts)

    def training_at(self, ratio: float) -> TrainingOptions:
        """How a model of a ratio is trained; a rate that the user or the paper has set is the same for all."""
        if "lr" in self.given or self.options.preset == "paper":
            return self.training
        rate = rate_at(self.training.lr, self.training.optimizer, self.data.images_per_class, 1 - ratio)
        return replace(self.training, lr=rate)

    @cached_property
    def _costs(self) -> CostModel:
        return cost_model(self.start)

    def sized(self, size: dict[str, Any]) -> Plan:
        """The plan of one model; `size` are options of `config.SIZES` in place of the plan's own.

        Raises:
            OptionError: another option, or a value out of range.
        """
        others = sorted(set(size) - SIZES)
        if others:
            raise OptionError(f"{others[0]} was settled with the vote: of a plan only the size can be chosen still")
        cleared: dict[str, Any] = dict.fromkeys(BOUNDS) if any(size.get(name) is not None for name in BOUNDS) else {}
        options = override(replace(self.options, **cleared), size)
        check_bounds(options)
        start = replace(self.start, options=options, ratio=options.ratio)
        given = plain(self.given | cleared | size)
        return replace(
            self, options=options, start=start, notes=list(self.notes), phases=dict(self.phases), given=given
        )


def settle_options(
    wanted: AdaptOptions, training_changes: dict[str, Any], images_per_class: float, optimizer: str = "sgd"
) -> tuple[AdaptOptions, TrainingOptions]:
    """Fill what was left open from the preset's recipe; what the user set stands.

    A user's optimiser gets the rate that is its own; `optimizer` is that of the base's family.
    """
    own = training_changes.get("optimizer")
    chosen = recipe(wanted.preset, images_per_class, wanted.strategy, own if own in OPTIMIZERS else optimizer)
    names = {f.name for f in fields(AdaptOptions)}
    open_ones = {k: v for k, v in chosen.items() if k in names and getattr(wanted, k) is None}
    training = {k: v for k, v in chosen.items() if k not in names}
    if wanted.prune_stem:  # what is left of it has to learn to do without the rest
        training["freeze_stem"] = False
    training |= {name: value for name, value in training_changes.items() if value is not None}
    return replace(wanted, **open_ones), override(TrainingOptions(), training)


def plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options that were set, as JSON has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items() if v is not None}

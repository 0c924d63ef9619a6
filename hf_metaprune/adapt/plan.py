"""What one vote has settled, and what models of any size would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from ..config import SIZE_OPTIONS, AdaptOptions, TrainingOptions, override
from ..data.task import TaskData
from ..errors import OptionError
from ..masks.mask import Mask
from ..models.architectures.recipe import CONVOLUTIONAL, Recipe
from ..similarity import Neighbor
from ..sizing.cost_model import CostModel
from ..sizing.fitting import check_bounds, make_sizing, task_cost_model
from ..sizing.inputs import AdaptInputs
from ..sizing.order import Order
from ..training.record import RunRecord
from .recipes import rate_at, recipe
from .voters import Voters

BOUNDS = ("ratio", "max_params", "max_macs", "max_latency_ms")


@dataclass
class Plan:
    """The neighbors of a task and their vote: from here on models of any size can be made (`MetaPruner.make`)."""

    data: TaskData
    training: TrainingOptions
    inputs: AdaptInputs
    voters: Voters
    order: Order
    record: RunRecord
    given: dict[str, Any] = field(default_factory=dict)
    """What the user has set, by name."""

    @property
    def options(self) -> AdaptOptions:
        """The options, with every choice made."""
        return self.inputs.options

    @property
    def neighbors(self) -> Sequence[Neighbor]:
        """The entries that voted, nearest first."""
        return self.voters.neighbors

    @property
    def runners_up(self) -> Sequence[Neighbor]:
        """The entries that were looked at, too, but did not vote, nearest first."""
        return self.voters.runners_up

    def mask(self, ratio: float) -> Mask:
        """The units that stay at a ratio."""
        return self.order.mask(make_sizing(self.inputs, self.order).counts(ratio))

    def cost(self, ratio: float) -> tuple[int, int]:
        """Parameters, and MACs of an image, of a model at a ratio; exact, without making it."""
        counts = make_sizing(self.inputs, self.order).counts(ratio)
        return self._costs.params(counts), self._costs.macs(counts)

    def training_at(self, ratio: float) -> TrainingOptions:
        """How a model of a ratio is trained; a rate that the user or the paper has set is the same for all."""
        if "lr" in self.given or self.options.preset == "paper":
            return self.training
        rate = rate_at(self.training.lr, self.inputs.base.family.recipe, self.data.images_per_class, 1 - ratio)
        return replace(self.training, lr=rate)

    @cached_property
    def _costs(self) -> CostModel:
        return task_cost_model(self.inputs)

    def sized(self, size: dict[str, Any]) -> Plan:
        """The plan of one model; `size` are options of `config.SIZES` in place of the plan's own.

        Raises:
            OptionError: another option, or a value out of range.
        """
        others = sorted(set(size) - SIZE_OPTIONS)
        if others:
            raise OptionError(f"{others[0]} was settled with the vote: of a plan only the size can be chosen still")
        cleared: dict[str, Any] = dict.fromkeys(BOUNDS) if any(size.get(name) is not None for name in BOUNDS) else {}
        options = override(replace(self.options, **cleared), size)
        check_bounds(options)
        inputs = replace(self.inputs, options=options, ratio=options.ratio)
        return replace(self, inputs=inputs, record=self.record.copy(), given=as_json(self.given | cleared | size))


def resolve_options(
    options: AdaptOptions, training: TrainingOptions, images_per_class: float, family: Recipe = CONVOLUTIONAL
) -> tuple[AdaptOptions, TrainingOptions]:
    """Fill what was left open from the preset's recipe; what the user set stands.

    A user's optimizer gets the learning rate that is its own.
    """
    chosen = recipe(options.preset, images_per_class, options.strategy, family, training.optimizer)
    if options.prune_stem:  # what is left of it has to learn to do without the rest
        chosen["freeze_stem"] = False

    def filled(given: Any) -> Any:
        names = {f.name for f in fields(given)}
        return replace(given, **{k: v for k, v in chosen.items() if k in names and getattr(given, k) is None})

    return filled(options), filled(training)


def as_json(options: dict[str, Any]) -> dict[str, Any]:
    """Options that were set, as JSON has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items() if v is not None}

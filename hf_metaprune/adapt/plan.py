"""The plan that one vote gives, from which models of any size can be made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from ..config import SIZE_OPTIONS, AdaptOptions, TrainingOptions
from ..data.task import TaskData
from ..errors import OptionError
from ..masks.mask import Mask
from ..models.architectures.recipe import CONVOLUTIONAL, Recipe
from ..options import override
from ..similarity import Neighbor
from ..sizing.cost_model import CostModel, task_cost_model
from ..sizing.fitting import check_bounds, make_sizing
from ..sizing.inputs import AdaptInputs
from ..sizing.order import Order
from ..training.record import RunRecord
from ..training.soft_labels import SoftLabels
from .recipes import MANY_IMAGES, preset_values, scaled_learning_rate
from .teacher import Teacher
from .voters import Voters

BOUNDS = ("ratio", "max_params", "max_macs", "max_latency_ms")
"""Options that set the size of the whole model; one of them replaces the others."""


@dataclass(frozen=True)
class Plan:
    """The neighbors of a task and their vote, from which models of any size can be made (see `MetaPruner.make`).

    Example:
        A plan, the costs of two sizes, and a model of one of them::

            plan = pruner.plan("photos")
            print(plan.cost(0.8), plan.cost(0.9))
            print(plan.mask(0.9).n_kept, plan.training_at(0.9).lr)
            result = pruner.make(plan, ratio=0.9)
    """

    data: TaskData
    """The task's images and labels."""
    training: TrainingOptions
    """How models are trained, with every choice made."""
    inputs: AdaptInputs
    """The base, the task, the options and the device."""
    voters: Voters
    """The entries that voted."""
    order: Order
    """The order in which units stay."""
    record: RunRecord
    """The notes, times and costs so far."""
    given: dict[str, Any] = field(default_factory=dict)
    """The options that the user has set, by name, as JSON values."""
    teacher: Teacher | None = None
    """The whole base with a classifier for the task, if it teaches."""
    soft_labels: SoftLabels | None = None
    """The base's answers to the images without labels, if these are learned."""

    @property
    def options(self) -> AdaptOptions:
        """The options, with every choice made."""
        return self.inputs.options

    @property
    def has_few_images(self) -> bool:
        """Whether so few images are there to learn from that good batch norm statistics should stay."""
        return self.inputs.photos is None and self.data.images_per_class < MANY_IMAGES

    @property
    def neighbors(self) -> Sequence[Neighbor]:
        """The entries that voted, nearest first."""
        return self.voters.neighbors

    @property
    def runners_up(self) -> Sequence[Neighbor]:
        """The entries that have a score but did not vote, nearest first."""
        return self.voters.runners_up

    def mask(self, ratio: float) -> Mask:
        """Return the units that stay at a ratio.

        Args:
            ratio: share of units to remove, in [0, 1].

        Returns:
            The mask over the plan's layers.

        Raises:
            OptionError: the ratio is not in [0, 1].
        """
        _check_share(ratio)
        return self.order.mask(make_sizing(self.inputs, self.order).counts(ratio))

    def cost(self, ratio: float) -> tuple[int, int]:
        """Return the exact parameters and MACs per image of a model at a ratio, without making it.

        Args:
            ratio: share of units to remove, in [0, 1].

        Returns:
            The parameters, and the multiply-accumulate operations (MACs) per image.

        Raises:
            OptionError: the ratio is not in [0, 1].
        """
        _check_share(ratio)
        counts = make_sizing(self.inputs, self.order).counts(ratio)
        return self._costs.params(counts), self._costs.macs(counts)

    def training_at(self, ratio: float) -> TrainingOptions:
        """Return how a model of a ratio is trained.

        Only the learning rate depends on the ratio. A rate that the user or the paper sets is the same for all ratios.

        Args:
            ratio: share of units to remove, in [0, 1].

        Returns:
            The plan's options of training, with the learning rate of the ratio.

        Raises:
            OptionError: the ratio is not in [0, 1].
        """
        _check_share(ratio)
        if "lr" in self.given or self.options.preset == "paper":
            return self.training
        assert self.training.lr is not None  # the recipe has chosen it
        rate = scaled_learning_rate(
            self.training.lr, self.inputs.base.family.recipe, self.data.images_per_class, 1 - ratio
        )
        return replace(self.training, lr=rate)

    @cached_property
    def _costs(self) -> CostModel:
        return task_cost_model(self.inputs)

    def with_size(self, size: dict[str, Any]) -> Plan:
        """Return this plan with other options of the size.

        Args:
            size: options of ``config.SIZE_OPTIONS`` by name, in place of the plan's own.

        Raises:
            OptionError: an option is not one of the size, or a value is out of range.
        """
        other_options = sorted(set(size) - SIZE_OPTIONS)
        if other_options:
            raise OptionError(f"{other_options[0]} is fixed by the plan: only the size can change; make a new plan")
        cleared_bounds: dict[str, Any] = (
            dict.fromkeys(BOUNDS) if any(size.get(name) is not None for name in BOUNDS) else {}
        )
        options = override(replace(self.options, **cleared_bounds), size)
        check_bounds(options)
        inputs = replace(self.inputs, options=options, ratio=options.ratio)
        return replace(
            self, inputs=inputs, record=self.record.copy(), given=json_values(self.given | cleared_bounds | size)
        )


def _check_share(ratio: Any) -> None:
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio <= 1:
        raise OptionError(f"a ratio must be a number from 0 to 1, not {ratio!r}; 0.9 removes 90% of units")


def resolve_options(
    options: AdaptOptions,
    training: TrainingOptions,
    images_per_class: float,
    recipe: Recipe = CONVOLUTIONAL,
    photos: bool = False,
) -> tuple[AdaptOptions, TrainingOptions]:
    """Return the options with every open choice made by the preset's recipe.

    What the user has set stays. If the user sets only the optimizer, the learning rate is that of the optimizer.

    Args:
        options: how neighbors are found and vote; None is an open choice.
        training: how the model is trained; None is an open choice.
        images_per_class: mean number of training images per class.
        recipe: the recipe of the base's architecture.
        photos: whether there are photos without labels.

    Returns:
        Both kinds of options.
    """
    recipe_values = preset_values(
        options.preset, images_per_class, options.strategy, recipe, training.optimizer, photos
    )
    if options.prune_stem:  # the units that stay in the stem must learn to do without the others
        recipe_values["freeze_stem"] = False

    def fill(open_options: Any) -> Any:
        open_names = {f.name for f in fields(open_options) if getattr(open_options, f.name) is None}
        return replace(open_options, **{k: v for k, v in recipe_values.items() if k in open_names})

    return fill(options), fill(training)


def json_values(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that are not None, with lists in place of tuples, as JSON has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items() if v is not None}

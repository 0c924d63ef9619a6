"""Baselines: other models of the same photos, made to compare the visitor's model with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..adapt.classifier import make_head
from ..adapt.plan import Plan
from ..config import BASELINE
from ..models.slicing import count_parameters
from ..pruner import MetaPruner
from ..training.forward import accuracy
from ..training.hardware import pick_device
from ..training.loop import Callback

NO_BANK, RANDOM_UNITS = "units that your photos choose, without the bank", "units chosen at random"
WHOLE_BASE = "the whole base, with a classifier for your classes"
STRATEGIES = {NO_BANK: BASELINE, RANDOM_UNITS: "random"}
"""The baselines that are adapted like the visitor's model, with the strategy of each."""
REPORT_NAMES = {NO_BANK: "without a bank", RANDOM_UNITS: "units at random"}
"""The baselines that the report shows, too, with their names there."""


@dataclass(frozen=True)
class ComparisonRow:
    """The figures of one model in the comparison: the visitor's own, or a baseline."""

    name: str
    """The name that the page shows."""
    accuracy: float
    """Accuracy on the test images, in [0, 1]."""
    params: int
    """Parameters."""
    accuracy_at_step: dict[int, float] = field(default_factory=dict)
    """Accuracies during the training, in [0, 1], by step; empty for a model without training."""


Baseline = Callable[[Sequence[Callback]], ComparisonRow]
"""A function that makes a baseline; it takes the callbacks of the training."""


def baselines(pruner: MetaPruner, plan: Plan) -> Iterator[tuple[str, Baseline]]:
    """Yield the name of each baseline, and the function that makes it.

    Each baseline gets the photos, the steps and the seed of the plan. All but the whole base get its photos without
    labels and its ratio, too.
    """
    for name, strategy in STRATEGIES.items():
        yield name, partial(_adapt, pruner, plan, name, strategy)
    yield WHOLE_BASE, partial(_solve_whole_base, pruner, plan)


def _adapt(pruner: MetaPruner, plan: Plan, name: str, strategy: str, callbacks: Sequence[Callback]) -> ComparisonRow:
    options: dict[str, Any] = {
        "strategy": strategy,
        "ratio": plan.options.ratio,
        "steps": plan.training.steps,
        "seed": plan.options.seed,
    }
    report = pruner.adapt(plan.data, unlabeled=plan.inputs.photos, callbacks=callbacks, **options).report
    return ComparisonRow(name, report.accuracy, report.params, report.accuracy_at_step)


def _solve_whole_base(pruner: MetaPruner, plan: Plan, _: Sequence[Callback]) -> ComparisonRow:
    data, device = plan.data, pick_device()
    model = pruner.bank.base.whole(data.task.labels).to(device).eval()
    make_head("ridge", model, data.train, data.task, [], device)
    return ComparisonRow(WHOLE_BASE, accuracy(model, data.evaluation, device), count_parameters(model))

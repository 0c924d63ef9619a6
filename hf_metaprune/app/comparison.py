"""Other ways to a classifier of the same photos, run for comparison: without a bank, by chance, and the whole base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..adapt.classifier import make_head
from ..adapt.plan import Plan
from ..models.slicing import count_parameters
from ..pruner import BASELINE, MetaPruner
from ..training.forward import accuracy
from ..training.hardware import pick_device
from ..training.loop import Callback

WITHOUT, RANDOM = "units that your photos choose, without the bank", "units chosen at random"
STRATEGIES = {WITHOUT: BASELINE, RANDOM: "random"}
REPORTED = {WITHOUT: "without a bank", RANDOM: "units at random"}
"""Ways that the report shows, too, and what it calls them."""
BASE = "the whole base, with a classifier for your classes"


@dataclass(frozen=True)
class Compared:
    """How well a way did on the same test images, at its end and on the way, and how large its model is."""

    name: str
    accuracy: float
    params: int
    at_step: dict[int, float] = field(default_factory=dict)


Way = Callable[[Sequence[Callback]], Compared]


def ways(pruner: MetaPruner, plan: Plan) -> Iterator[tuple[str, Way]]:
    """Each way with its name, to be run one by one: same photos, size, steps and seed as of the plan."""
    for name, strategy in STRATEGIES.items():
        yield name, partial(_adapted, pruner, plan, name, strategy)
    yield BASE, partial(_whole, pruner, plan)


def _adapted(pruner: MetaPruner, plan: Plan, name: str, strategy: str, callbacks: Sequence[Callback]) -> Compared:
    options: dict[str, Any] = {
        "strategy": strategy,
        "ratio": plan.options.ratio,
        "steps": plan.training.steps,
        "seed": plan.options.seed,
    }
    report = pruner.adapt(plan.data, callbacks=callbacks, **options).report
    return Compared(name, report.accuracy, report.params, report.accuracy_at_step)


def _whole(pruner: MetaPruner, plan: Plan, _: Sequence[Callback]) -> Compared:
    data, device = plan.data, pick_device()
    model = pruner.bank.base.whole(data.task.labels).to(device).eval()
    make_head("ridge", model, data.train, data.task, [], device)
    return Compared(BASE, accuracy(model, data.evaluation, device), count_parameters(model))

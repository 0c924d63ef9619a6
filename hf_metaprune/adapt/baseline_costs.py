"""What it would have cost to do without a bank, in training FLOPs; nothing is trained for it."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import TrainingOptions
from ..methods.schedule import IterativeOptions, counts_by_step
from ..models.base_model import BaseModel
from ..sizing.cost_model import CostModel

FINE_TUNED = "fine-tune the whole base for as many steps"
FROM_SCRATCH = "prune the base for this task alone (IFP, 1,000 steps)"


def baseline_flops(
    base: BaseModel, costs: CostModel, ratio: float, training: TrainingOptions, images: int
) -> dict[str, int]:
    """Return the training FLOPs of other ways to a model for the same task, by what they are.

    Pruning from scratch is Algorithm 2 of MVP with its own options, counted by its schedule of widths.

    Args:
        costs: of the base's sub-networks with the task's labels, trained whole.
        ratio: that of the model that was made.
        images: to learn from; a batch has no more.
    """
    whole = {layer.name: layer.size for layer in base.layers}
    batch = min(training.batch_size, images)
    found = {FINE_TUNED: training.steps * batch * costs.training_flops(whole)}
    if base.family.recipe.scheduled and 0 < ratio < 1:
        options = IterativeOptions(ratio=ratio)
        batch = min(options.batch_size, images)
        found[FROM_SCRATCH] = batch * sum(_each_step(costs, whole, options))
    return found


def _each_step(costs: CostModel, whole: dict[str, int], options: IterativeOptions) -> Iterator[int]:
    counts, flops = whole, costs.training_flops(whole)
    for held in counts_by_step(whole, options):
        if held != counts:
            counts, flops = held, costs.training_flops(held)
        yield flops

"""The training FLOPs of baselines for the same task; they are computed, and nothing is trained."""

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
    """Return the training FLOPs of baselines for the same task, by a description of the way.

    One way is fine-tuning the whole base. The other is MVP's Algorithm 2 with its default options; its FLOPs follow
    from its schedule, and it is given only for architectures that the paper prunes in this way.

    Args:
        base: the base model.
        costs: the cost model of the base's sub-networks, with the task's labels and a stem that is trained.
        ratio: the ratio of the model that was made.
        training: how the model was trained; the whole base is fine-tuned for as many steps.
        images: number of training images; a batch has no more.
    """
    whole = {layer.name: layer.size for layer in base.layers}
    batch = min(training.batch_size, images)
    flops = {FINE_TUNED: training.steps * batch * costs.training_flops(whole)}
    if base.family.recipe.is_scheduled and 0 < ratio < 1:
        options = IterativeOptions(ratio=ratio)
        batch = min(options.batch_size, images)
        flops[FROM_SCRATCH] = batch * sum(_flops_by_step(costs, whole, options))
    return flops


def _flops_by_step(costs: CostModel, whole: dict[str, int], options: IterativeOptions) -> Iterator[int]:
    """Yield the training FLOPs per image of each step of MVP's Algorithm 2."""
    counts, flops = whole, costs.training_flops(whole)
    for step_counts in counts_by_step(whole, options):
        if step_counts != counts:
            counts, flops = step_counts, costs.training_flops(step_counts)
        yield flops

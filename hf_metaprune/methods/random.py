"""A random mask, then fine-tuning: the papers' lower bound."""

from ..masks.mask import Mask
from ..models.modeling import MetaPrunedForImageClassification
from ..training.loop import TrainingResult
from .magnitude import prune_once
from .method import Method, PruningJob, register_method


class RandomPruning(Method):
    """Uniformly random units stay; no task plays a part."""

    name = "random"
    reference = "Meta-Vote Pruning, Section 5.2"

    def prune(self, job: PruningJob) -> tuple[MetaPrunedForImageClassification, TrainingResult]:
        mask = Mask.random(job.base.sizes, job.options.ratio, job.seed)
        return prune_once(self, job, mask)


register_method(RandomPruning())

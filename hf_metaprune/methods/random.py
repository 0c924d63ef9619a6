"""A random mask, then fine-tuning: the papers' lower bound."""

from ..masks.mask import Mask
from ..models.modeling import MetaPrunedForImageClassification
from ..training.loop import TrainingResult
from .magnitude import prune_once
from .method import Method, PruningJob, SgdOptions, register_method


class RandomPruning(Method[SgdOptions]):
    """Uniformly random units stay; no task plays a part."""

    name = "random"
    options = SgdOptions
    reference = "Meta-Vote Pruning, Section 5.2"

    def prune(self, job: PruningJob[SgdOptions]) -> tuple[MetaPrunedForImageClassification, TrainingResult]:
        mask = Mask.random(job.base.sizes, job.options.ratio, job.seed)
        return prune_once(self, job, mask)


register_method(RandomPruning())

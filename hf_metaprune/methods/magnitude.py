"""One-shot pruning by the L1 norm of filters (Li et al., 2017), then fine-tuning."""

import torch

from ..masks.mask import Mask
from ..models.modeling import MetaPrunedForImageClassification
from ..training.importance import magnitude_scores
from ..training.loop import TrainingResult
from .iterative import next_mask
from .method import Method, PruningJob, SgdOptions, fine_tune_by_sgd, register_method


class MagnitudePruning(Method[SgdOptions]):
    """The filters with the largest L1 norm stay; the same for every task of a base."""

    name = "magnitude"
    options = SgdOptions
    reference = "Li et al., 2017, Pruning Filters for Efficient ConvNets (arXiv 1608.08710)"

    def prune(self, job: PruningJob[SgdOptions]) -> tuple[MetaPrunedForImageClassification, TrainingResult]:
        scores = magnitude_scores(job.base.network, job.base.layers)
        mask = next_mask(Mask.full(job.base.sizes), scores, 1.0, job.options.ratio)
        return prune_once(self, job, mask)


def prune_once(
    method: Method[SgdOptions], job: PruningJob[SgdOptions], mask: Mask
) -> tuple[MetaPrunedForImageClassification, TrainingResult]:
    """Slice the base by `mask`, then fine-tune."""
    config = job.base.config(mask, job.labels, synsets=job.synsets, ratio=job.options.ratio, method=method.name)
    torch.manual_seed(job.seed)
    model = job.base.slice(config)
    return model, fine_tune_by_sgd(job, model)


register_method(MagnitudePruning())

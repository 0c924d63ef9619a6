"""Entries that grow from a bank's trunk in few steps."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ..config import TrainingOptions
from ..errors import OptionError
from ..models.modeling import MetaPrunedForImageClassification
from ..options import option
from ..sizing.cost_model import count_flops
from ..training.feature_teacher import FeatureTeacher
from ..training.forward import extract_features
from ..training.importance import TaylorRecorder
from ..training.loop import TrainingResult, fine_tune
from ..training.ridge import ridge_head
from ..trunk.decoded_head import set_decoded_head
from ..trunk.decoder import Decoder
from .iterative import IterativePruning, PruneWhileTraining
from .method import PruningJob, register_method
from .schedule import IterativeOptions

WARMUP_STEPS, MAX_NORM = 10, 10.0
"""Steps of warm-up, and the largest norm of the gradient, as for models that are adapted from a trunk."""


@dataclass(frozen=True)
class GrowOptions(IterativeOptions):
    """Options of growing an entry from a trunk.

    Example:
        >>> options = GrowOptions(first_ratio=0.85)
        >>> options.steps, options.prune_every
        (80, 5)
    """

    steps: int = option(80, "J: optimizer steps.", low=1, high=1_000_000)
    lr: float = option(0.1, "Peak learning rate of SGD.", low=0.0, high=100.0)
    prune_every: int = option(5, "h: steps between two prunings.", low=1, high=1_000_000)
    first_ratio: float | None = option(
        None,
        "r of a larger part of the trunk to begin with, of which the task chooses units; if left out the trunk's own.",
        low=0.0,
        high=1.0,
    )


class Growing(IterativePruning):
    """Training of a part of the trunk by the base, on the task's images.

    It learns the base's features and gets the classifier of a model that is adapted from a trunk. With `first_ratio` it
    begins with a larger part, and loses the units that matter least for these features meanwhile.
    """

    name = "grow"
    reference = "hf_metaprune; importance of Molchanov et al., 2019 (arXiv 1906.10771)"
    uses_trunk = True
    options = GrowOptions
    recorder = TaylorRecorder

    def prune(self, job: PruningJob[IterativeOptions]) -> tuple[MetaPrunedForImageClassification, TrainingResult]:
        o, trunk = job.options, job.trunk
        assert isinstance(o, GrowOptions)
        assert trunk is not None
        width = job.base.family.classifier(job.base.network).in_features
        if o.first_ratio is not None and trunk.decoder(trunk.mask(o.ratio)).weight.shape[1] < width:
            raise OptionError("first_ratio is not for a base whose last layer is pruned: leave it out")
        first_mask = trunk.mask(o.ratio if o.first_ratio is None else min(o.first_ratio, o.ratio))
        config = job.base.config(first_mask, job.labels, synsets=job.synsets, ratio=o.ratio, method=self.name)
        torch.manual_seed(job.seed)
        model = trunk.slice(config).to(device=job.device, memory_format=torch.channels_last)
        base, start = job.base.whole(job.labels), time.perf_counter()
        head = ridge_head(extract_features(base, job.train, job.device), job.train.targets, len(job.labels))
        head_seconds = time.perf_counter() - start
        layer = trunk.decoder(first_mask).layer()

        def set_classifier(model: MetaPrunedForImageClassification) -> None:
            set_decoded_head(model, Decoder.of(layer), head, job.train, len(job.labels), job.device)

        callbacks = [] if o.first_ratio is None else [PruneWhileTraining(model, o, self.recorder)]
        result = fine_tune(
            model,
            job.train,
            TrainingOptions(
                steps=o.steps, batch_size=o.batch_size, lr=o.lr, momentum=o.momentum, warmup_steps=WARMUP_STEPS,
                clip_norm=MAX_NORM, loss="features", precision=o.precision, eval_steps=job.eval_steps,
            ),
            evaluation=job.evaluation,
            device=job.device,
            seed=job.seed,
            callbacks=callbacks,
            statistics="new",
            teacher=FeatureTeacher(base, job.train, layer, set_classifier),
            progress=job.progress,
        )  # fmt: skip
        result.seconds += head_seconds
        result.flops += len(job.train) * count_flops(base, job.train.images[:1])[0]  # for the base's own classifier
        return model, result


register_method(Growing())

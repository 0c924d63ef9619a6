"""What a way to make a bank entry looks like, and the registry of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..config import MethodOptions, TrainingOptions
from ..data.images import ImageSet
from ..models.base_model import BaseModel
from ..models.modeling import MetaPrunedForImageClassification
from ..registry import Registry
from ..training.loop import Callback, TrainingResult, fine_tune


@dataclass
class PruningJob:
    """One task to prune the base for: its images and labels, options, and where to run."""

    base: BaseModel
    train: ImageSet
    labels: Sequence[str]
    options: MethodOptions
    device: torch.device
    seed: int = 0
    synsets: Sequence[str | None] | None = None
    evaluation: ImageSet | None = None
    eval_steps: tuple[int, ...] = ()
    progress: bool = False


class Method(ABC):
    """A way to prune a base model for one task. `name` is its key; `reference` says where it comes from."""

    name: ClassVar[str]
    reference: ClassVar[str]

    @abstractmethod
    def prune(self, job: PruningJob) -> tuple[MetaPrunedForImageClassification, TrainingResult]:
        """A trained, sliced model of the task at ``job.options.ratio``."""

    def fine_tune(
        self, job: PruningJob, model: MetaPrunedForImageClassification, callbacks: Sequence[Callback] = ()
    ) -> TrainingResult:
        """Train `model` for ``job.options.steps`` at the method's constant learning rate.

        Its batch norm statistics are taken anew at the end: a unit that went changes what all later layers see.
        """
        o = job.options
        training = TrainingOptions(
            steps=o.steps,
            batch_size=o.batch_size,
            lr=o.lr,
            momentum=o.momentum,
            schedule="constant",
            precision=o.precision,
            eval_steps=job.eval_steps,
        )
        return fine_tune(
            model,
            job.train,
            training,
            evaluation=job.evaluation,
            device=job.device,
            seed=job.seed,
            callbacks=callbacks,
            statistics=True,
            progress=job.progress,
        )


METHODS: Registry[Method] = Registry("pruning method", "hf_metaprune.methods")
register_method, method_names, get_method = METHODS.register, METHODS.names, METHODS.get

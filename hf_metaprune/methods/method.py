"""What a way to make a bank entry looks like, and the registry of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch

from ..config import MethodOptions, TrainingOptions, option
from ..data.images import ImageSet
from ..models.base_model import BaseModel
from ..models.modeling import MetaPrunedForImageClassification
from ..registry import Registry
from ..training.loop import Callback, TrainingResult, fine_tune

O_co = TypeVar("O_co", bound=MethodOptions, covariant=True)


@dataclass(frozen=True)
class SgdOptions(MethodOptions):
    """Options of methods that train by SGD; the defaults are those of MVP, Section 3.1."""

    lr: float = option(0.005, "Learning rate of SGD.", low=0.0, high=100.0)
    momentum: float = option(0.9, "Momentum of SGD.", low=0.0, high=0.9999)


@dataclass(frozen=True)
class PruningJob(Generic[O_co]):
    """One task to prune the base for: its images and labels, options, and where to run."""

    base: BaseModel
    train: ImageSet
    labels: Sequence[str]
    options: O_co
    device: torch.device
    seed: int = 0
    synsets: Sequence[str | None] | None = None
    evaluation: ImageSet | None = None
    eval_steps: tuple[int, ...] = ()
    progress: bool = False


class Method(ABC, Generic[O_co]):
    """A way to prune a base model for one task."""

    name: ClassVar[str]
    """The key it is chosen by."""
    reference: ClassVar[str]
    """Where it comes from."""
    options: ClassVar[type[MethodOptions]] = SgdOptions
    """The class of its options, with their defaults; the command line shows them when the method is chosen."""

    @abstractmethod
    def prune(self, job: PruningJob[Any]) -> tuple[MetaPrunedForImageClassification, TrainingResult]:
        """A trained, sliced model of the task at ``job.options.ratio``."""


def fine_tune_by_sgd(
    job: PruningJob[SgdOptions], model: MetaPrunedForImageClassification, callbacks: Sequence[Callback] = ()
) -> TrainingResult:
    """Train `model` for ``job.options.steps`` steps of SGD at a constant learning rate.

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


METHODS: Registry[Method[Any]] = Registry("pruning method", "hf_metaprune.methods")
register_method, method_names, get_method = METHODS.register, METHODS.names, METHODS.get

"""What a way to make a bank entry looks like, and the registry of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import ClassVar

import torch

from ..config import MethodOptions, TrainingOptions
from ..data import ImageSet
from ..errors import OptionError
from ..models.base import BaseModel
from ..models.modeling import MetaPrunedForImageClassification
from ..training import Callback, TrainingResult, fine_tune

ENTRY_POINT_GROUP = "hf_metaprune.methods"


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
        """Train `model` for ``job.options.steps`` at the method's constant learning rate."""
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
            progress=job.progress,
        )


_METHODS: dict[str, Method] = {}


def register_method(method: Method) -> Method:
    """Make a method known by its name; a second one of the same name is refused."""
    if method.name in _METHODS:
        raise OptionError(f"a method named {method.name!r} is registered already")
    _METHODS[method.name] = method
    return method


def method_names() -> list[str]:
    """Names of all methods, those of installed plugins included (entry point group ``hf_metaprune.methods``)."""
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name not in _METHODS:
            register_method(point.load()())
    return sorted(_METHODS)


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        OptionError: there is none; the message lists them.
    """
    if name not in method_names():
        raise OptionError(f"there is no pruning method {name!r}; there are: {', '.join(method_names())}")
    return _METHODS[name]

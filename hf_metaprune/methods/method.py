"""Interface and registry of pruning methods, which prune the base for one task and so make a bank's entries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch

from ..config import MethodOptions, TrainingOptions
from ..data.images import ImageSet
from ..models.base_model import BaseModel
from ..models.modeling import MetaPrunedForImageClassification
from ..options import option
from ..registry import Registry
from ..training.loop import Callback, TrainingResult, fine_tune
from ..trunk.trunk import Trunk

O_co = TypeVar("O_co", bound=MethodOptions, covariant=True)


@dataclass(frozen=True)
class SgdOptions(MethodOptions):
    """Options of methods that train by SGD. The defaults are those of MVP, Section 3.1.

    Example:
        >>> SgdOptions(lr=0.01).momentum
        0.9
    """

    lr: float = option(0.005, "Learning rate of SGD.", low=0.0, high=100.0)
    momentum: float = option(0.9, "Momentum of SGD.", low=0.0, high=0.9999)


@dataclass(frozen=True)
class PruningJob(Generic[O_co]):
    """One task to prune the base for, with the options and the device.

    Example:
        A job on the images of a `TaskData` called ``data``, pruned by magnitude::

            method = get_method("magnitude")
            options = method.options(ratio=0.9, steps=100)
            job = PruningJob(base, data.train, data.task.labels, options, torch.device("cpu"))
            model, result = method.prune(job)
    """

    base: BaseModel
    """The base model to prune."""
    train: ImageSet
    """The task's training images, preprocessed as ``base.preprocessing`` says."""
    labels: Sequence[str]
    """The task's labels, in the order of the images' targets."""
    options: O_co
    """The method's options, of the class ``Method.options``."""
    device: torch.device
    """Where the model is trained."""
    seed: int = 0
    """Seed of everything random, so that a build that was interrupted goes on to the same entries."""
    synsets: Sequence[str | None] | None = None
    """WordNet synset id of each label, None for labels without one."""
    trunk: Trunk | None = None
    """The trunk of the bank, for a method that uses it."""
    evaluation: ImageSet | None = None
    """Images to measure the accuracy on; None: it is not measured."""
    eval_steps: tuple[int, ...] = ()
    """Steps after which the accuracy is measured. It is measured at the end in any case."""
    progress: bool = False
    """Whether to show a progress bar."""


class Method(ABC, Generic[O_co]):
    """A way to prune a base model for one task.

    A subclass sets `name` and `reference` and implements `prune`. It is chosen by its name, after
    ``register_method(...)`` or through the entry point group ``hf_metaprune.methods`` of its package.

    Example:
        A method that keeps the units with the largest gates, such as a batch norm's scale and shift::

            class GatePruning(Method):
                name = "gates"
                reference = "Liu et al., 2017, Network Slimming (arXiv 1708.06519)"

                def prune(self, job):
                    state = job.base.state
                    scores = {
                        layer.name: sum(gate.by_unit(state[gate.tensor].abs()) for gate in layer.gates)
                        for layer in job.base.layers
                    }
                    mask = next_mask(Mask.full(job.base.sizes), scores, 1.0, job.options.ratio)
                    return prune_once(self, job, mask)

            register_method(GatePruning())
            build_bank(bank, data, [(0, 1, 2)], method="gates")
    """

    name: ClassVar[str]
    """The word that chooses the method: the value of the option ``method``."""
    reference: ClassVar[str]
    """Where the method comes from, such as a paper."""
    uses_trunk: ClassVar[bool] = False
    """Whether it begins with the trunk of the bank, and not with the base."""
    options: ClassVar[type[MethodOptions]] = SgdOptions
    """The class of the method's options, with their defaults. The command line shows them with the method."""

    @abstractmethod
    def prune(self, job: PruningJob[Any]) -> tuple[MetaPrunedForImageClassification, TrainingResult]:
        """Train a model of the task, and remove units until the ratio is reached.

        Args:
            job: the task, the options and the device.

        Returns:
            First the sliced model, in eval mode. It keeps as many units of each layer as `keep_count` says for
            ``job.options.ratio``. A method that learns scores also sets its ``score_mask``. Second what the training
            measured.
        """


def fine_tune_by_sgd(
    job: PruningJob[SgdOptions], model: MetaPrunedForImageClassification, callbacks: Sequence[Callback] = ()
) -> TrainingResult:
    """Train a model for ``job.options.steps`` steps of SGD at a constant learning rate.

    Batch norm statistics are estimated again at the end, because pruning changes the input of all later layers.

    Args:
        job: the task and the options.
        model: the model to train, in place.
        callbacks: are called after each step and each evaluation; they may prune the model.

    Returns:
        What the training measured.

    Example:
        A random sub-network of a job's base::

            mask = Mask.random(job.base.sizes, job.options.ratio, seed=0)
            model = job.base.slice(job.base.config(mask, job.labels))
            training = fine_tune_by_sgd(job, model)
            print(training.losses[-1], training.seconds)
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
        statistics="new",
        progress=job.progress,
    )


METHODS: Registry[Method[Any]] = Registry("pruning method", "hf_metaprune.methods")
"""All pruning methods by name, with those of installed plugins."""
register_method, method_names, get_method = METHODS.register, METHODS.names, METHODS.get

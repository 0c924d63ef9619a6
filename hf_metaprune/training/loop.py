"""The training loop: fine-tune, evaluate, recalibrate. Accelerate runs it in several processes."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from tqdm.auto import tqdm

from ..config import TrainingOptions
from ..data.images import ImageSet, augment
from ..errors import DataError, OptionError
from ..models.modeling import MetaPrunedForImageClassification
from ..sizing.cost_model import count_flops
from .feature_teacher import FeatureTeacher, Student
from .final_weights import FinalWeights
from .forward import accuracy
from .hardware import autocast, pick_device
from .learnable_scores import LearnableScores
from .soft_labels import SoftLabels
from .statistics import batch_norms, recalibrate, statistics_images

STATISTICS_AFTER = ("moving", "new", "fixed")
"""The kinds of batch norm statistics that a training may leave, see `fine_tune`."""


@dataclass
class TrainingState:
    """The state of a training run that callbacks get.

    Callbacks may change `model` and `optimizer` in place, as pruning while training does.

    Example:
        What a `Callback` may do with it::

            def halve_the_rate(state):
                for group in state.optimizer.param_groups:
                    group["lr"] /= 2
    """

    model: MetaPrunedForImageClassification
    """The model that is trained."""
    optimizer: torch.optim.Optimizer
    """The optimizer of its parameters."""
    steps: int
    """Number of steps that the run will take."""
    step: int = 0
    """Number of steps that are done."""
    loss: float = math.nan
    """Training loss of the last step."""
    accuracy: float = math.nan
    """Accuracy at the last evaluation, in [0, 1]; NaN before the first one."""
    stop: bool = False
    """Whether to end the training after this step; a callback may set it."""


class Callback(Protocol):
    """What a training run calls after every step and every evaluation.

    Example:
        A callback that ends the training when the loss is small::

            class StopAtLoss:
                def on_step(self, state):
                    state.stop = state.loss < 0.01

                def on_eval(self, state):
                    print(state.step, state.accuracy)

            pruner.adapt("photos", callbacks=[StopAtLoss()])
    """

    def on_step(self, state: TrainingState) -> None:
        """React to a step.

        Args:
            state: where the training is, after the step.
        """

    def on_eval(self, state: TrainingState) -> None:
        """React to an evaluation.

        Args:
            state: where the training is, with the new accuracy.
        """


@dataclass
class TrainingResult:
    """What one training run measured.

    Example:
        Two phases of one training:

        >>> both = TrainingResult(losses=[0.9, 0.5], seconds=1.0) + TrainingResult(losses=[0.4], seconds=0.5)
        >>> both.losses, both.seconds
        ([0.9, 0.5, 0.4], 1.5)
    """

    accuracy_at_step: dict[int, float] = field(default_factory=dict)
    """Accuracy on the evaluation images, in [0, 1], by the number of steps before it."""
    losses: list[float] = field(default_factory=list)
    """Training loss of each step."""
    images: int = 0
    """Images that the steps were made with; an image counts once per pass over it."""
    flops: int = 0
    """FLOPs of the training, forward and backward, without evaluations."""
    seconds: float = 0.0
    """Wall time of the training in seconds, without evaluations."""

    def __add__(self, later: TrainingResult) -> TrainingResult:
        """Return the result of this phase and a later phase of one training together."""
        return TrainingResult(
            self.accuracy_at_step | later.accuracy_at_step,
            self.losses + later.losses,
            self.images + later.images,
            self.flops + later.flops,
            self.seconds + later.seconds,
        )


def batch_rows(n: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Yield batches of row numbers without end: random passes over all rows, one after the other.

    A batch may begin in one pass and end in the next, so that all batches have the same size.

    Args:
        n: number of rows.
        batch_size: rows per batch; a batch has at most `n`.
        seed: seed of the order.

    Yields:
        int64 (batch,).
    """
    size, rng, queue = min(batch_size, n), np.random.default_rng(seed), np.empty(0, dtype=np.int64)
    while True:
        while len(queue) < size:
            queue = np.concatenate([queue, rng.permutation(n)])
        yield queue[:size]
        queue = queue[size:]


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Return SGD or AdamW over the parameters that need gradients, without weight decay on biases and norms.

    Args:
        model: the model.
        options: the optimizer's options, none of them open.
    """
    assert options.lr is not None and options.momentum is not None
    params = [p for p in model.parameters() if p.requires_grad]
    matrices, vectors = [p for p in params if p.ndim > 1], [p for p in params if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": options.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=options.lr)
    return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)


def lr_factor(step: int, options: TrainingOptions) -> float:
    """Return the learning rate of a step as a share of the peak rate, in [0, 1].

    Args:
        step: number of the step, from 0.
        options: the schedule: warm-up steps, then a constant rate or half a cosine down to 0.
    """
    warmup_steps = options.warmup_steps or 0
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if options.schedule == "constant":
        return 1.0
    span = max(1, options.steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup_steps) / span)))


def fine_tune(
    model: MetaPrunedForImageClassification,
    train: ImageSet,
    options: TrainingOptions,
    *,
    evaluation: ImageSet | None = None,
    device: torch.device | None = None,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    learnable: LearnableScores | None = None,
    statistics: str = "moving",
    soft_labels: SoftLabels | None = None,
    teacher: FeatureTeacher | None = None,
    progress: bool = False,
) -> TrainingResult:
    """Train a model in place.

    With several processes (``accelerate launch``) each process takes its share of every batch.

    Args:
        model: the model. In the end it is on `device`, in eval mode, and has `FinalWeights`.
        train: the images to train on.
        options: optimizer, schedule, augmentation and the steps to evaluate at.
        evaluation: images to measure the accuracy on; None: it is not measured.
        device: where to train; None: the best device of this machine.
        seed: seed of batches and augmentation.
        callbacks: are called after each step and each evaluation.
        learnable: scores to train together with the weights.
        statistics: the batch norm statistics of the model in the end. "moving" are the moving averages of the training,
            which belong to earlier weights, and not to averaged ones. "new" are estimated again in the end. "fixed" are
            those from before the training, which trains with them, too.
        teacher: what the model learns from instead of labels: the base's features of the teacher's images. The
            classifier is computed anew before each evaluation, and in the end.
        soft_labels: images without labels to train on, too, each step with `batch_size` of them, or as many as there
            are. Their loss counts ``options.distill_weight`` times that of the labeled images.
        progress: whether to show a progress bar.

    Returns:
        What the training measured.

    Raises:
        DataError: there is no image to train on, or the loss is not finite.
        OptionError: `learnable` is given in a run of several processes, or there are no such statistics.
    """
    if statistics not in STATISTICS_AFTER:
        raise OptionError(f"statistics={statistics!r}: must be one of {', '.join(STATISTICS_AFTER)}")
    if not len(train):
        raise DataError("there is no image to train on: give at least one image per class")
    options = options.closed()
    run = _Run(
        model, train, options, evaluation, device or pick_device(), seed, callbacks, learnable, statistics, soft_labels,
        teacher,
    )  # fmt: skip
    for step in tqdm(range(options.steps), desc="fine-tuning", disable=not progress, leave=False):
        run.step(step)
        if run.state.stop:
            break
    return run.finish()


class _Run:
    """One training run, which `fine_tune` calls step by step."""

    def __init__(
        self,
        model: MetaPrunedForImageClassification,
        train: ImageSet,
        options: TrainingOptions,
        evaluation: ImageSet | None,
        device: torch.device,
        seed: int,
        callbacks: Sequence[Callback],
        learnable: LearnableScores | None = None,
        statistics: str = "moving",
        soft_labels: SoftLabels | None = None,
        teacher: FeatureTeacher | None = None,
    ) -> None:
        self.model, self.train, self.options, self.evaluation = model, train, options, evaluation
        self.device, self.callbacks, self.learnable = device, callbacks, learnable
        self.seed, self.statistics, self.soft_labels = seed, statistics, soft_labels
        self.teacher = teacher.to(self.device) if teacher is not None else None
        self.images = train if teacher is None else teacher.images
        self.accelerator = Accelerator(device_placement=False)
        model.to(device=device, memory_format=torch.channels_last)
        self.trainable = {p: p.requires_grad for p in model.parameters()}
        self._enter_train_mode()
        student: nn.Module = model
        if teacher is not None:
            model.classifier.requires_grad_(False)  # it is computed
            student = Student(model, teacher.decoder)
        self.optimizer = make_optimizer(student, options)
        self.parallel: Any = self.accelerator.prepare(student) if self.accelerator.num_processes > 1 else student
        if learnable is not None:
            self._add_learnable_scores(learnable)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda s: lr_factor(s, options))
        self.statistics_images = statistics_images(self.images, soft_labels.images if soft_labels else None, seed)
        self.rows = batch_rows(len(self.images), options.batch_size, seed)
        self.soft_rows = batch_rows(len(soft_labels.images), options.batch_size, seed + 2) if soft_labels else None
        self.generator = torch.Generator().manual_seed(seed)
        self.mixup_rng = np.random.default_rng(seed + 1)
        self.weights = FinalWeights(student, options.ema or 0.0, options.start_share or 0.0)
        self.state = TrainingState(model, self.optimizer, options.steps)
        self.result = TrainingResult()
        self.flops_per_image, self.counted_params = 0, -1
        self.best_accuracy, self.evaluations_without_gain = -1.0, 0
        if 0 in options.eval_steps or options.steps == 0:
            self._evaluate(0)

    def _add_learnable_scores(self, learnable: LearnableScores) -> None:
        """Train scores together with the weights."""
        if self.accelerator.num_processes > 1:
            raise OptionError("several processes cannot learn scores: start the program without `accelerate launch`")
        self.parallel = learnable
        self.optimizer.add_param_group({"params": learnable.parameters, "lr": learnable.lr, "weight_decay": 0.0})

    def _enter_train_mode(self) -> None:
        self.model.train()
        if self.options.freeze_stem:
            self.model.freeze_stem()
        for norm in batch_norms(self.model) if self.statistics == "fixed" else ():
            norm.eval()

    def _next_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return this process's part of the next batch: float32 (batch, 3, h, w) and int64 (batch,)."""
        return self._pixels(self.images, self._own_share(next(self.rows)))

    def _own_share(self, rows: np.ndarray) -> np.ndarray:
        """Return this process's part of the rows of a batch."""
        return rows[self.accelerator.process_index :: self.accelerator.num_processes]

    def _pixels(self, images: ImageSet, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return augmented images, float32 (rows, 3, h, w), and their targets, int64 (rows,)."""
        batch, targets = images.__getitems__(rows)
        x = images.preprocessing.normalize(batch.to(self.device))
        x = augment(x, self.generator, self.options.flip, self.options.shift)
        return x.contiguous(memory_format=torch.channels_last), targets.to(self.device)

    def _loss(self, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self.teacher is not None:
            with autocast(self.device, self.options.precision):
                decoded = self.parallel(x)
            return self.teacher.loss(decoded, x, self.options)
        smoothing = self.options.label_smoothing
        weight, mixed_targets = 1.0, targets
        if self.options.mixup:
            weight = float(self.mixup_rng.beta(self.options.mixup, self.options.mixup))
            order = torch.randperm(len(x), generator=self.generator).to(self.device)
            x, mixed_targets = weight * x + (1.0 - weight) * x[order], targets[order]
        soft_rows = self._own_share(next(self.soft_rows)) if self.soft_rows is not None else None
        n_labeled = len(x)
        if soft_rows is not None and self.soft_labels is not None:
            x = torch.cat([x, self._pixels(self.soft_labels.images, soft_rows)[0]])
        with autocast(self.device, self.options.precision):
            logits = self.parallel(x).logits.float()
        logits, soft_logits = logits[:n_labeled], logits[n_labeled:]
        loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        if weight < 1.0:
            mixed_loss = F.cross_entropy(logits, mixed_targets, label_smoothing=smoothing)
            loss = weight * loss + (1 - weight) * mixed_loss
        if soft_rows is not None and self.soft_labels is not None:
            soft_loss = self.soft_labels.loss(soft_logits, torch.as_tensor(soft_rows), self.options.distill_temperature)
            loss = loss + self.options.distill_weight * soft_loss
        return loss if self.learnable is None else loss + self.learnable.penalty()

    def _count_flops(self, x: torch.Tensor) -> None:
        """Add a step's images, of which `x` are labeled, and FLOPs to the result."""
        params = sum(p.numel() for p in self.model.parameters())
        if params != self.counted_params:  # a callback has pruned the model
            self.flops_per_image = count_flops(self.model, x[:1], bool(self.options.freeze_stem))[1]
            self.counted_params = params
        n_images = len(x) * self.accelerator.num_processes
        if self.soft_labels is not None:
            n_images += min(self.options.batch_size, len(self.soft_labels.images))
        self.result.images += n_images
        flops_of_teacher = 0 if self.teacher is None else self.teacher.flops_per_image
        self.result.flops += (self.flops_per_image + flops_of_teacher) * n_images

    def step(self, step: int) -> None:
        """Train for one step, then call the callbacks, then evaluate if it is time."""
        start = time.perf_counter()
        x, targets = self._next_batch()
        loss = self._loss(x, targets)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        if self.options.clip_norm:
            nn.utils.clip_grad_norm_(self.parallel.parameters(), self.options.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        self.weights.update()
        self.state.step, self.state.loss = step + 1, loss.item()
        if not math.isfinite(self.state.loss):
            raise DataError(f"the loss is {self.state.loss} at step {step + 1}: use a smaller lr, or clip_norm=1")
        self.result.losses.append(self.state.loss)
        self.result.seconds += time.perf_counter() - start
        self._count_flops(x)
        start = time.perf_counter()
        for callback in self.callbacks:
            callback.on_step(self.state)
        self.result.seconds += time.perf_counter() - start
        if step + 1 in self.options.eval_steps and step + 1 < self.options.steps:
            self._evaluate(step + 1)

    def _evaluate(self, step: int) -> None:
        """Measure the accuracy of the model that training would give if it ended after `step` steps."""
        if self.evaluation is None:
            return
        with (
            self.weights.applied(),
            self.learnable.temporarily_folded() if self.learnable is not None else contextlib.nullcontext(),
            self._final_statistics() if self.statistics == "new" and step else contextlib.nullcontext(),
        ):
            self._set_classifier(step)
            self.state.accuracy = accuracy(self.model, self.evaluation, self.device, self.options.precision)
        self.result.accuracy_at_step[step] = self.state.accuracy
        self._enter_train_mode()
        for callback in self.callbacks:
            callback.on_eval(self.state)
        is_gain = self.state.accuracy > self.best_accuracy
        self.evaluations_without_gain = 0 if is_gain else self.evaluations_without_gain + 1
        self.best_accuracy = max(self.best_accuracy, self.state.accuracy)
        if self.options.patience and self.evaluations_without_gain >= self.options.patience:
            self.state.stop = True

    def _set_classifier(self, step: int) -> None:
        """Compute the classifier anew if the features that it reads have changed."""
        if self.teacher is not None and step:
            self.teacher.set_classifier(self.model)

    @contextlib.contextmanager
    def _final_statistics(self) -> Iterator[None]:
        """Give the model, inside the block, the batch norm statistics that it would have if training ended now."""
        saved_buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        recalibrate(self.model, self.statistics_images, self.device, seed=self.seed)
        yield
        for name, value in saved_buffers.items():
            self.model.get_buffer(name).copy_(value)

    def _renew_statistics(self) -> None:
        """Estimate the model's batch norm statistics again for good, and count the work as training."""
        start = time.perf_counter()
        images = recalibrate(self.model, self.statistics_images, self.device, seed=self.seed)
        self.result.flops += images * count_flops(self.model, self.train.images[:1])[0]
        self.result.seconds += time.perf_counter() - start
        self.statistics = "moving"  # the last evaluation needs no other statistics

    def finish(self) -> TrainingResult:
        """Leave the model as `fine_tune` promises it, and return the result."""
        self.weights.apply()
        self.weights = FinalWeights(self.model)  # the last evaluation averages no more
        if self.accelerator.num_processes > 1:  # each process has statistics of other images
            for name, value in self.model.named_buffers():
                if value.is_floating_point():
                    self.model.get_buffer(name).copy_(self.accelerator.reduce(value, "mean"))
        if self.state.step and self.statistics == "new":
            self._renew_statistics()
        self._set_classifier(self.state.step)
        if self.state.step and self.state.step not in self.result.accuracy_at_step:
            self._evaluate(self.state.step)
        for parameter, trainable in self.trainable.items():
            parameter.requires_grad_(trainable)
        self.model.eval()
        return self.result

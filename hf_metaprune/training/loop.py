"""The training loop: fine-tune, evaluate, recalibrate; devices and processes by Accelerate."""

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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from ..config import TrainingOptions
from ..data.images import ImageSet, augment
from ..errors import DataError, OptionError
from ..models.modeling import MetaPrunedForImageClassification
from ..sizing.cost_model import count_flops
from .forward import accuracy
from .hardware import autocast, pick_device
from .learnable_scores import LearnableScores
from .statistics import recalibrate


@dataclass
class TrainingState:
    """What callbacks see. `model` and `optimizer` may be changed in place (pruning while training does)."""

    model: MetaPrunedForImageClassification
    optimizer: torch.optim.Optimizer
    steps: int
    step: int = 0
    loss: float = math.nan
    accuracy: float = math.nan
    stop: bool = False


class Callback(Protocol):
    """Told after every step and every evaluation; set ``state.stop`` to end training early."""

    def on_step(self, state: TrainingState) -> None: ...

    def on_eval(self, state: TrainingState) -> None: ...


@dataclass
class TrainingResult:
    """What a training run did: accuracy by step, loss by step, images seen, FLOPs, seconds without evaluation."""

    accuracy_at_step: dict[int, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    images: int = 0
    flops: int = 0
    seconds: float = 0.0

    def __add__(self, later: TrainingResult) -> TrainingResult:
        """Two phases of one training."""
        return TrainingResult(
            self.accuracy_at_step | later.accuracy_at_step,
            self.losses + later.losses,
            self.images + later.images,
            self.flops + later.flops,
            self.seconds + later.seconds,
        )


def batch_rows(n: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of row numbers: shuffled passes over `n` rows, chained and cut into equal batches."""
    size, rng, rest = min(batch_size, n), np.random.default_rng(seed), np.empty(0, dtype=np.int64)
    while True:
        while len(rest) < size:
            rest = np.concatenate([rest, rng.permutation(n)])
        yield rest[:size]
        rest = rest[size:]


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters that need gradients; no decay on biases and norms."""
    params = [p for p in model.parameters() if p.requires_grad]
    decay, plain = [p for p in params if p.ndim > 1], [p for p in params if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=options.lr)
    return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)


def lr_factor(step: int, options: TrainingOptions) -> float:
    """The learning rate of a step (from 0), as a share of its peak."""
    if step < options.warmup_steps:
        return (step + 1) / (options.warmup_steps + 1)
    if options.schedule == "constant":
        return 1.0
    span = max(1, options.steps - options.warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - options.warmup_steps) / span)))


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
    statistics: bool = False,
    progress: bool = False,
) -> TrainingResult:
    """Train `model` in place, and the scores of `learnable` with it, if there are any.

    It ends on `device` in eval mode, with its averaged weights if `options.ema` is set. With `statistics`, its batch
    norm statistics are estimated anew at the end: those that training leaves are averages over weights that have
    gone, and of none of the averaged weights.

    With several processes (``accelerate launch``) each takes its share of every batch.

    Raises:
        DataError: there is no image to train on, or the loss is not finite.
    """
    if not len(train):
        raise DataError("there is no image to train on")
    options = options.closed()
    run = _Run(model, train, options, evaluation, device or pick_device(), seed, callbacks, learnable, statistics)
    for step in tqdm(range(options.steps), desc="fine-tuning", disable=not progress, leave=False):
        run.step(step)
        if run.state.stop:
            break
    return run.finish()


class _Run:
    """One training run; split into steps so that each reads without scrolling."""

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
        statistics: bool = False,
    ) -> None:
        self.model, self.train, self.options, self.evaluation = model, train, options, evaluation
        self.device, self.callbacks, self.learnable = device, callbacks, learnable
        self.seed, self.statistics = seed, statistics
        self.accelerator = Accelerator(device_placement=False)
        model.to(device=device, memory_format=torch.channels_last)
        self.trainable = {p: p.requires_grad for p in model.parameters()}
        self._train_mode()
        self.optimizer = make_optimizer(model, options)
        self.parallel: Any = self.accelerator.prepare(model) if self.accelerator.num_processes > 1 else model
        if learnable is not None:
            self._learn_scores(learnable)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda s: lr_factor(s, options))
        self.rows = batch_rows(len(train), options.batch_size, seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.mixup = np.random.default_rng(seed + 1)
        # Buffers follow the model: batch norm statistics are moving averages already, and to average the indices
        # of kept channels would round them to their neighbors.
        self.average = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.ema), use_buffers=False)
            if options.ema
            else None
        )
        if self.average is not None:
            self.average.update_parameters(model)
        self.state = TrainingState(model, self.optimizer, options.steps)
        self.result = TrainingResult()
        self.flops_per_image, self.counted_params = 0, -1
        self.best, self.flat = -1.0, 0
        if 0 in options.eval_steps or options.steps == 0:
            self._evaluate(0)

    def _learn_scores(self, learnable: LearnableScores) -> None:
        if self.accelerator.num_processes > 1:
            raise OptionError("scores are learnt by one process: start it without `accelerate launch`")
        self.parallel = learnable
        self.optimizer.add_param_group({"params": learnable.parameters, "lr": learnable.lr, "weight_decay": 0.0})

    def _train_mode(self) -> None:
        self.model.train()
        if self.options.freeze_stem:
            self.model.freeze_stem()

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        rows = next(self.rows)
        rows = rows[self.accelerator.process_index :: self.accelerator.num_processes]
        images, targets = self.train.__getitems__(rows)
        x = self.train.preprocessing.normalize(images.to(self.device))
        x = augment(x, self.generator, self.options.flip, self.options.shift)
        return x.contiguous(memory_format=torch.channels_last), targets.to(self.device)

    def _loss(self, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        smoothing = self.options.label_smoothing
        weight, other = 1.0, targets
        if self.options.mixup:
            weight = float(self.mixup.beta(self.options.mixup, self.options.mixup))
            order = torch.randperm(len(x), generator=self.generator).to(self.device)
            x, other = weight * x + (1.0 - weight) * x[order], targets[order]
        with autocast(self.device, self.options.precision):
            logits = self.parallel(x).logits
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        if weight < 1.0:
            loss = weight * loss + (1 - weight) * F.cross_entropy(logits.float(), other, label_smoothing=smoothing)
        return loss if self.learnable is None else loss + self.learnable.penalty()

    def _count(self, x: torch.Tensor) -> None:
        params = sum(p.numel() for p in self.model.parameters())
        if params != self.counted_params:
            self.flops_per_image = count_flops(self.model, x[:1], self.options.freeze_stem)[1]
            self.counted_params = params
        self.result.images += len(x) * self.accelerator.num_processes
        self.result.flops += self.flops_per_image * len(x) * self.accelerator.num_processes

    def step(self, step: int) -> None:
        began = time.perf_counter()
        x, targets = self._batch()
        loss = self._loss(x, targets)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        if self.options.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.state.step, self.state.loss = step + 1, loss.item()
        if not math.isfinite(self.state.loss):
            raise DataError(f"the loss is {self.state.loss} at step {step + 1}: use a smaller lr, or clip_norm=1")
        self.result.losses.append(self.state.loss)
        self.result.seconds += time.perf_counter() - began
        self._count(x)
        began = time.perf_counter()
        for callback in self.callbacks:
            callback.on_step(self.state)
        self.result.seconds += time.perf_counter() - began
        if step + 1 in self.options.eval_steps and step + 1 < self.options.steps:
            self._evaluate(step + 1)

    def _evaluate(self, step: int) -> None:
        if self.evaluation is None:
            return
        shown: Any = self.average.module if self.average is not None else self.model
        with (
            self.learnable.applied() if self.learnable is not None else contextlib.nullcontext(),
            self._true_statistics(shown) if self.statistics and step else contextlib.nullcontext(),
        ):
            self.state.accuracy = accuracy(shown, self.evaluation, self.device, self.options.precision)
        self.result.accuracy_at_step[step] = self.state.accuracy
        self._train_mode()
        for callback in self.callbacks:
            callback.on_eval(self.state)
        self.flat = 0 if self.state.accuracy > self.best else self.flat + 1
        self.best = max(self.best, self.state.accuracy)
        if self.options.patience and self.flat >= self.options.patience:
            self.state.stop = True

    @contextlib.contextmanager
    def _true_statistics(self, shown: MetaPrunedForImageClassification) -> Iterator[None]:
        """Inside the block a model has the statistics that it would have if training ended now."""
        saved = {name: value.clone() for name, value in shown.named_buffers()}
        recalibrate(shown, self.train, self.device, seed=self.seed)
        yield
        for name, value in saved.items():
            shown.get_buffer(name).copy_(value)

    def _renew_statistics(self) -> None:
        """For good, and counted as training."""
        began = time.perf_counter()
        images = recalibrate(self.model, self.train, self.device, seed=self.seed)
        self.result.flops += images * count_flops(self.model, self.train.images[:1])[0]
        self.result.seconds += time.perf_counter() - began
        self.statistics = False

    def finish(self) -> TrainingResult:
        if self.average is not None:
            self.model.load_state_dict(self.average.module.state_dict())
            self.average = None
        if self.accelerator.num_processes > 1:  # each process saw other images
            for name, value in self.model.named_buffers():
                if value.is_floating_point():
                    self.model.get_buffer(name).copy_(self.accelerator.reduce(value, "mean"))
        if self.state.step and self.statistics:
            self._renew_statistics()
        if self.state.step and self.state.step not in self.result.accuracy_at_step:
            self._evaluate(self.state.step)
        for parameter, trainable in self.trainable.items():
            parameter.requires_grad_(trainable)
        self.model.eval()
        return self.result

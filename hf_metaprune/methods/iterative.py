"""Prune while fine-tuning (Algorithm 2 of MVP), for any importance that can be recorded during training."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from ..masks.mask import Mask, keep_count
from ..models.modeling import MetaPrunedForImageClassification
from ..models.slicing import shrink
from ..training.importance import ActivationRecorder, TaylorRecorder
from ..training.loop import TrainingResult, TrainingState
from .method import Method, PruningJob, fine_tune_by_sgd
from .schedule import IterativeOptions, least_steps, remaining

log = logging.getLogger(__name__)
Recorder = ActivationRecorder | TaylorRecorder


def next_mask(held: Mask, scores: dict[str, torch.Tensor], share: float, ratio: float) -> Mask:
    """`held` without the `share` of each layer's units that score lowest, never below the target count.

    At least one unit goes at a time; of equal scores the higher index goes first.
    """
    kept = {}
    for name, units in held.items():
        target = keep_count(held.sizes[name], ratio)
        if len(units) <= target:
            kept[name] = units
            continue
        remain = remaining(len(units), target, share)
        order = torch.argsort(scores[name], descending=True, stable=True)[:remain]
        kept[name] = units[order.numpy()]
    return Mask(kept, held.sizes)


class PruneWhileTraining:
    """Training callback: every h steps, score units by what was recorded since, and slice the model."""

    def __init__(
        self,
        model: MetaPrunedForImageClassification,
        options: IterativeOptions,
        recorder: Callable[[MetaPrunedForImageClassification], Recorder],
    ) -> None:
        self.options, self.make = options, recorder
        self.mask = model.mask()
        self.goal = {name: keep_count(size, options.ratio) for name, size in self.mask.sizes.items()}
        self.recorder: Recorder | None = self.make(model).__enter__()

    @property
    def done(self) -> bool:
        """Whether every layer has reached its target."""
        return all(len(self.mask[name]) == count for name, count in self.goal.items())

    def on_step(self, state: TrainingState) -> None:
        last_chance = state.step == state.steps
        if self.recorder is None or (state.step % self.options.prune_every and not last_chance):
            return
        scores = self.recorder.scores()
        self.recorder.__exit__()
        self.recorder = None
        share = 1.0 if last_chance else self.options.prune_share  # a run too short for its schedule ends in one cut
        target = next_mask(self.mask, scores, share, self.options.ratio)
        shrink(state.model.network, state.model.layers, self.mask, target, state.optimizer)
        self.mask = target
        state.model.config.masks = target.pack()
        if not self.done:
            self.recorder = self.make(state.model).__enter__()

    def on_eval(self, state: TrainingState) -> None:
        """Nothing to do."""


class IterativePruning(Method[IterativeOptions]):
    """Shared by the methods that prune while training: `recorder` says what is measured."""

    options = IterativeOptions
    recorder: type[Recorder]

    def prune(self, job: PruningJob[IterativeOptions]) -> tuple[MetaPrunedForImageClassification, TrainingResult]:
        self.tell(job)
        full = Mask.full(job.base.sizes)
        config = job.base.config(full, job.labels, synsets=job.synsets, ratio=job.options.ratio, method=self.name)
        torch.manual_seed(job.seed)  # the classifier's first weights
        model = job.base.slice(config)
        model.to(device=job.device, memory_format=torch.channels_last)
        pruning = PruneWhileTraining(model, job.options, self.recorder)
        result = fine_tune_by_sgd(job, model, [pruning])
        return model, result

    def tell(self, job: PruningJob[IterativeOptions]) -> None:
        """Say it when the steps are too few for the schedule: then the last of them cuts what is left, untrained."""
        o, least = job.options, least_steps(job.base.sizes, job.options)
        if o.steps <= least:
            every = o.prune_every * o.steps // (2 * least)
            log.warning(
                "%s: %d units of 100 are pruned only after %d steps with prune_every=%d, so step %d cuts the rest at "
                "once, and none follows: take %d steps%s",
                self.name, round(100 * o.ratio), least, o.prune_every, o.steps, 2 * least,
                f", or prune_every={every}" if every else "",
            )  # fmt: skip

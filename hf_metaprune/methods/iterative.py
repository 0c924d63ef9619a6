"""Pruning while fine-tuning (MVP, Algorithm 2), for any importance that can be recorded during training."""

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
from .schedule import IterativeOptions, least_steps, remaining_count

log = logging.getLogger(__name__)
Recorder = ActivationRecorder | TaylorRecorder
"""What measures the importance of units while a model is trained."""


def next_mask(current: Mask, scores: dict[str, torch.Tensor], share: float, ratio: float) -> Mask:
    """Return a mask without the units that score lowest in each layer.

    A layer loses at least one unit, until it has as many as `ratio` asks for. Between equal scores, the unit with the
    higher index is removed first.

    Args:
        current: the units that are kept so far.
        scores: the score of each kept unit, (kept units,) by layer, in the order of `current`.
        share: share of each layer's kept units to remove, in (0, 1]; 1 goes to the ratio at once.
        ratio: share of all units to remove in the end; `keep_count` units of each layer always stay.

    Returns:
        The units that are kept now.
    """
    kept_units = {}
    for name, units in current.items():
        target = keep_count(current.sizes[name], ratio)
        if len(units) <= target:
            kept_units[name] = units
            continue
        n_kept = remaining_count(len(units), target, share)
        order = torch.argsort(scores[name], descending=True, stable=True)[:n_kept]
        kept_units[name] = units[order.numpy()]
    return Mask(kept_units, current.sizes)


class PruneWhileTraining:
    """Training callback that slices the model every h steps, by the importance recorded since the last slice.

    Args:
        model: the model to train and prune.
        options: the schedule.
        recorder: makes what records the importance of the model's units.
    """

    def __init__(
        self,
        model: MetaPrunedForImageClassification,
        options: IterativeOptions,
        recorder: Callable[[MetaPrunedForImageClassification], Recorder],
    ) -> None:
        self.options, self._make_recorder = options, recorder
        self.mask = model.mask()
        self.goal = {name: keep_count(size, options.ratio) for name, size in self.mask.sizes.items()}
        self.recorder: Recorder | None = self._make_recorder(model).__enter__()

    @property
    def is_done(self) -> bool:
        """Whether every layer has as few units as the ratio asks for."""
        return all(len(self.mask[name]) == count for name, count in self.goal.items())

    def on_step(self, state: TrainingState) -> None:
        """Prune if the schedule says so, or if it is the last step.

        In a run that is too short for its schedule, the last step prunes everything that is left to prune.
        """
        is_last = state.step == state.steps
        if self.recorder is None or (state.step % self.options.prune_every and not is_last):
            return
        scores = self.recorder.scores()
        self.recorder.__exit__()
        self.recorder = None
        share = 1.0 if is_last else self.options.prune_share
        target = next_mask(self.mask, scores, share, self.options.ratio)
        shrink(state.model.network, state.model.layers, self.mask, target, state.optimizer)
        self.mask = target
        state.model.config.masks = target.pack()
        if not self.is_done:
            self.recorder = self._make_recorder(state.model).__enter__()

    def on_eval(self, state: TrainingState) -> None:
        """Do nothing."""


class IterativePruning(Method[IterativeOptions]):
    """Base class of the methods that prune while training (MVP, Algorithm 2)."""

    options = IterativeOptions
    recorder: type[Recorder]
    """The class that measures the importance of units."""

    def prune(self, job: PruningJob[IterativeOptions]) -> tuple[MetaPrunedForImageClassification, TrainingResult]:
        self._warn_if_too_short(job)
        full = Mask.full(job.base.sizes)
        config = job.base.config(full, job.labels, synsets=job.synsets, ratio=job.options.ratio, method=self.name)
        torch.manual_seed(job.seed)  # the classifier's first weights
        model = job.base.slice(config)
        model.to(device=job.device, memory_format=torch.channels_last)
        pruning = PruneWhileTraining(model, job.options, self.recorder)
        result = fine_tune_by_sgd(job, model, [pruning])
        return model, result

    def _warn_if_too_short(self, job: PruningJob[IterativeOptions]) -> None:
        """Log a warning if the steps are too few for the schedule, because no step follows the last cut then."""
        o, steps_needed = job.options, least_steps(job.base.sizes, job.options)
        if o.steps <= steps_needed:
            shorter = o.prune_every * o.steps // (2 * steps_needed)
            log.warning(
                "%s: with prune_every=%d, %d%% of the units are pruned only after %d steps, so step %d cuts the rest "
                "at once, and no training follows: take %d steps%s",
                self.name, o.prune_every, round(100 * o.ratio), steps_needed, o.steps, 2 * steps_needed,
                f", or prune_every={shorter}" if shorter else "",
            )  # fmt: skip

"""Base of the methods that learn a score for every unit: they train first with scores, then without."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

from ..config import MethodOptions, TrainingOptions
from ..masks.mask import Mask, keep_count
from ..masks.scores import ScoreMask
from ..models.modeling import MetaPrunedForImageClassification
from ..models.slicing import shrink
from ..options import option
from ..training.learnable_scores import LearnableScores, ScoreHistory
from ..training.loop import TrainingResult, TrainingState, fine_tune
from .iterative import next_mask
from .method import Method, PruningJob


@dataclass(frozen=True)
class LearnedScoreOptions(MethodOptions):
    """Options of methods that learn scores of units together with the weights (MVP, Algorithm 3).

    The paper does not give the weight of the L1 loss.

    Example:
        >>> LearnedScoreOptions(ratio=0.8).score_l1
        10.0
    """

    weight_lr: float = option(0.0005, "Learning rate of AdamW for weights.", low=0.0, high=100.0)
    score_lr: float = option(0.05, "Learning rate of AdamW for scores.", low=0.0, high=100.0)
    score_l1: float = option(10.0, "Weight of the L1 loss, the mean absolute score.", low=0.0, high=1e6)
    score_share: float = option(
        0.5, "Part of the steps in which scores are learnt: at most (ahnp), or all in all (amp).", low=0.0, high=1.0
    )


class ScoreTraining:
    """Training callback that learns scores, prunes by them, and prunes to the ratio in the last step.

    A layer that has reached the ratio is finished: its units stay, and their scores are no longer recorded or
    penalized.

    Args:
        model: the model to train and prune.
        job: the task and the options.
        method: decides which units stay after each step.
    """

    def __init__(
        self, model: MetaPrunedForImageClassification, job: PruningJob[LearnedScoreOptions], method: LearnedScorePruning
    ) -> None:
        self.options, self.method = job.options, method
        self.mask = model.mask()
        self.goal = {name: keep_count(size, self.options.ratio) for name, size in self.mask.sizes.items()}
        self.learnable = LearnableScores(model, self.options.score_lr, self.options.score_l1)
        self.score_history = ScoreHistory(self.mask.sizes)
        self._update_finished_layers()

    def _update_finished_layers(self) -> None:
        self.learnable.finished_layers = frozenset(
            name for name, count in self.goal.items() if len(self.mask[name]) <= count
        )

    @property
    def is_done(self) -> bool:
        """Whether every layer has as few units as the ratio asks for."""
        return len(self.learnable.finished_layers) == len(self.goal)

    def on_step(self, state: TrainingState) -> None:
        """Record the scores, prune, and stop the training when all layers are finished."""
        scores = self.learnable.values()
        self.score_history.record(
            self.mask, {n: s for n, s in scores.items() if n not in self.learnable.finished_layers}
        )
        if state.step == state.steps:
            self.method.warn_before_last_cut(self, scores)
            target = next_mask(self.mask, scores, 1.0, self.options.ratio)
        else:
            target = self.method.mask_after_step(self, scores)
        if target != self.mask:
            shrink(state.model.network, state.model.layers, self.mask, target, state.optimizer)
            self.learnable.shrink(self.mask, target, state.optimizer)
            self.mask = target
            state.model.config.masks = target.pack()
            self._update_finished_layers()
        state.stop = self.is_done

    def on_eval(self, state: TrainingState) -> None:
        """Do nothing."""


class LearnedScorePruning(Method[LearnedScoreOptions]):
    """Base class of the methods that learn a score for every unit.

    AdamW trains weights and scores for at most ``score_share`` of the steps, then the weights of the sliced network.
    """

    options = LearnedScoreOptions

    @abstractmethod
    def mask_after_step(self, training: ScoreTraining, scores: dict[str, torch.Tensor]) -> Mask:
        """Return the units that stay after a step; the last step with scores goes to the ratio without asking.

        Args:
            training: the state of the training; ``training.mask`` has the units that are kept so far.
            scores: float32 (kept units,) by layer.
        """

    def scores(self, training: ScoreTraining) -> ScoreMask:
        """Return the score of every unit, pruned or not: its score when its layer was cut."""
        return training.score_history.last()

    def warn_before_last_cut(self, training: ScoreTraining, scores: dict[str, torch.Tensor]) -> None:
        """Log a warning if the last cut of the training with scores is not what the user expects; by default none.

        Args:
            training: the state of the training before the cut.
            scores: float32 (kept units,) by layer.
        """

    def prune(self, job: PruningJob[LearnedScoreOptions]) -> tuple[MetaPrunedForImageClassification, TrainingResult]:
        o, full = job.options, Mask.full(job.base.sizes)
        config = job.base.config(full, job.labels, synsets=job.synsets, ratio=o.ratio, method=self.name)
        torch.manual_seed(job.seed)  # the classifier's first weights
        model = job.base.slice(config).to(job.device)
        training = ScoreTraining(model, job, self)
        steps = max(1, round(o.score_share * o.steps))
        with_scores = self._train(job, model, steps, 0, callbacks=[training], learnable=training.learnable)
        training.learnable.fold()
        n_done = len(with_scores.losses)
        without_scores = self._train(job, model, o.steps - n_done, n_done, statistics="new")
        model.score_mask = self.scores(training)
        return model, with_scores + without_scores

    def _train(
        self,
        job: PruningJob[LearnedScoreOptions],
        model: MetaPrunedForImageClassification,
        steps: int,
        steps_before: int,
        **fine_tune_options: Any,
    ) -> TrainingResult:
        """Train for `steps` steps, after an earlier phase of `steps_before` steps."""
        o = job.options
        options = TrainingOptions(
            steps=steps,
            batch_size=o.batch_size,
            optimizer="adamw",
            lr=o.weight_lr,
            schedule="constant",
            precision=o.precision,
            eval_steps=tuple(step - steps_before for step in job.eval_steps if 0 <= step - steps_before <= steps),
        )
        result = fine_tune(
            model,
            job.train,
            options,
            evaluation=job.evaluation,
            device=job.device,
            seed=job.seed + steps_before,
            progress=job.progress,
            **fine_tune_options,
        )
        result.accuracy_at_step = {step + steps_before: share for step, share in result.accuracy_at_step.items()}
        return result

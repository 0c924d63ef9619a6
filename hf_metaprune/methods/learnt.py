"""Shared by the methods that learn a score for every unit: two phases of training, with scores and without."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

from ..config import MethodOptions, TrainingOptions, option
from ..masks.mask import Mask, keep_count
from ..masks.scores import ScoreMask
from ..models.modeling import MetaPrunedForImageClassification
from ..models.slicing import shrink
from ..training.learnable_scores import LearnableScores, ScoreKeeper
from ..training.loop import TrainingResult, TrainingState, fine_tune
from .iterative import next_mask
from .method import Method, PruningJob


@dataclass(frozen=True)
class LearntOptions(MethodOptions):
    """How scores of units are learnt beside the weights; MVP, Algorithm 3. The paper gives no weight of the L1 loss."""

    weight_lr: float = option(0.0005, "Learning rate of AdamW for weights.", low=0.0, high=100.0)
    score_lr: float = option(0.05, "Learning rate of AdamW for scores.", low=0.0, high=100.0)
    score_l1: float = option(10.0, "Weight of the L1 loss, the mean absolute score.", low=0.0, high=1e6)
    score_share: float = option(
        0.5, "Part of the steps in which scores are learnt: at most (ahnp), or all in all (amp).", low=0.0, high=1.0
    )


class ScoreTraining:
    """Training callback: learn scores, prune by `kept`, and in the last step of the phase cut down to the ratio.

    `keeper` notes the scores of a layer until it has reached the ratio. From then on its scores are those of units that
    stay, and no L1 loss pulls at them.
    """

    def __init__(
        self, model: MetaPrunedForImageClassification, job: PruningJob[LearntOptions], method: LearntPruning
    ) -> None:
        self.options, self.method = job.options, method
        self.mask = model.mask()
        self.goal = {name: keep_count(size, self.options.ratio) for name, size in self.mask.sizes.items()}
        self.learnable = LearnableScores(model, self.options.score_lr, self.options.score_l1)
        self.keeper = ScoreKeeper(self.mask.sizes)
        self._settle()

    def _settle(self) -> None:
        self.learnable.settled = frozenset(name for name, count in self.goal.items() if len(self.mask[name]) <= count)

    @property
    def done(self) -> bool:
        """Whether every layer has reached its target."""
        return len(self.learnable.settled) == len(self.goal)

    def on_step(self, state: TrainingState) -> None:
        scores = self.learnable.values()
        self.keeper.note(self.mask, {n: s for n, s in scores.items() if n not in self.learnable.settled})
        last = state.step == state.steps
        if last:
            self.method.tell(self, scores)
        target = next_mask(self.mask, scores, 1.0, self.options.ratio) if last else self.method.kept(self, scores)
        if target != self.mask:
            shrink(state.model.network, state.model.layers, self.mask, target, state.optimizer)
            self.learnable.shrink(self.mask, target, state.optimizer)
            self.mask = target
            state.model.config.masks = target.pack()
            self._settle()
        state.stop = self.done

    def on_eval(self, state: TrainingState) -> None:
        """Nothing to do."""


class LearntPruning(Method[LearntOptions]):
    """AdamW on weights and scores for at most `score_share` of the steps, then on the sliced network's weights."""

    options = LearntOptions

    @abstractmethod
    def kept(self, training: ScoreTraining, scores: dict[str, torch.Tensor]) -> Mask:
        """The units that stay after a step which is not the phase's last; scores by layer, of the units held."""

    def scores(self, training: ScoreTraining) -> ScoreMask:
        """What a unit is worth, pruned ones too: its score when its layer was cut."""
        return training.keeper.last()

    def tell(self, training: ScoreTraining, scores: dict[str, torch.Tensor]) -> None:
        """Say what the user should know of the phase's last cut, before it."""

    def prune(self, job: PruningJob[LearntOptions]) -> tuple[MetaPrunedForImageClassification, TrainingResult]:
        o, full = job.options, Mask.full(job.base.sizes)
        config = job.base.config(full, job.labels, synsets=job.synsets, ratio=o.ratio, method=self.name)
        torch.manual_seed(job.seed)  # the classifier's first weights
        model = job.base.slice(config).to(job.device)
        training = ScoreTraining(model, job, self)
        steps = max(1, round(o.score_share * o.steps))
        learnt = self._train(job, model, steps, 0, callbacks=[training], learnable=training.learnable)
        training.learnable.fold()
        tuned = self._train(job, model, o.steps - len(learnt.losses), len(learnt.losses), statistics=True)
        model.score_mask = self.scores(training)
        return model, learnt + tuned

    def _train(
        self,
        job: PruningJob[LearntOptions],
        model: MetaPrunedForImageClassification,
        steps: int,
        done: int,
        **others: Any,
    ) -> TrainingResult:
        """`steps` further steps after those that are `done`."""
        o = job.options
        options = TrainingOptions(
            steps=steps,
            batch_size=o.batch_size,
            optimizer="adamw",
            lr=o.weight_lr,
            schedule="constant",
            precision=o.precision,
            eval_steps=tuple(step - done for step in job.eval_steps if 0 <= step - done <= steps),
        )
        result = fine_tune(
            model,
            job.train,
            options,
            evaluation=job.evaluation,
            device=job.device,
            seed=job.seed + done,
            progress=job.progress,
            **others,
        )
        result.accuracy_at_step = {step + done: share for step, share in result.accuracy_at_step.items()}
        return result

"""Automatic head and node pruning (AHNP) by learned scores and a threshold (MVP, Algorithm 3)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from ..masks.mask import Mask
from ..masks.scores import ScoreMask
from ..options import option
from .learned_scores import LearnedScoreOptions, LearnedScorePruning, ScoreTraining
from .method import register_method

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AhnpOptions(LearnedScoreOptions):
    """Options of AHNP: those of `LearnedScoreOptions`, and the threshold of Algorithm 3.

    Example:
        >>> AhnpOptions(threshold=0.2).weight_lr
        0.0005
    """

    threshold: float = option(0.1, "tau: units whose score is smaller are pruned.", low=0.0, high=1e6)


class AutomaticPruning(LearnedScorePruning):
    """Pruning of the units whose score falls below tau, after each step, until each layer has reached the ratio."""

    options = AhnpOptions
    name = "ahnp"
    reference = "Meta-Vote Pruning, Algorithm 3; after Yu et al., 2022, Width & Depth Pruning for Vision Transformers"

    def mask_after_step(self, training: ScoreTraining, scores: dict[str, torch.Tensor]) -> Mask:
        kept_units = {}
        for name, units in training.mask.items():
            if name not in scores:
                kept_units[name] = units
                continue
            n_above = int((scores[name] >= self._threshold(training)).sum())
            n_kept = min(len(units), max(training.goal[name], n_above))
            order = torch.argsort(scores[name], descending=True, stable=True)[:n_kept]
            kept_units[name] = units[order.numpy()]
        return Mask(kept_units, training.mask.sizes)

    @staticmethod
    def _threshold(training: ScoreTraining) -> float:
        assert isinstance(training.options, AhnpOptions)
        return training.options.threshold

    def scores(self, training: ScoreTraining) -> ScoreMask:
        """Return each unit's mean score over the steps in which its layer was pruned, reconciled with the mask.

        All units are pruned at a score of about tau, so the last score would not tell early ones from late ones. The
        mean does, because a unit counts as 0 after it was pruned.
        """
        return training.score_history.mean().reconciled(training.mask)

    def warn_before_last_cut(self, training: ScoreTraining, scores: dict[str, torch.Tensor]) -> None:
        o, threshold, goal = training.options, self._threshold(training), sum(training.goal.values())
        excess = self.mask_after_step(training, scores).n_kept - goal
        if excess:
            log.warning(
                "ahnp: %d of the %d units to prune still score more than threshold=%g, and the last step cuts them all "
                "at once: raise score_l1=%g or score_share=%g",
                excess, training.mask.n_units - goal, threshold, o.score_l1, o.score_share,
            )  # fmt: skip


register_method(AutomaticPruning())

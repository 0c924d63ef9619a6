"""Automatic head and node pruning by learnt scores and a threshold (MVP, Algorithm 3)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from ..config import option
from ..masks.mask import Mask
from ..masks.scores import ScoreMask
from .learnt import LearntOptions, LearntPruning, ScoreTraining
from .method import register_method

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AhnpOptions(LearntOptions):
    """Options of `LearntOptions`, and the threshold of Algorithm 3."""

    threshold: float = option(0.1, "tau: units whose score is smaller are pruned.", low=0.0, high=1e6)


class AutomaticPruning(LearntPruning):
    """Units whose score falls below tau go after each step, until each layer has reached the ratio."""

    options = AhnpOptions
    name = "ahnp"
    reference = "Meta-Vote Pruning, Algorithm 3; after Yu et al., 2022, Width & Depth Pruning for Vision Transformers"

    def kept(self, training: ScoreTraining, scores: dict[str, torch.Tensor]) -> Mask:
        kept = {}
        for name, units in training.mask.items():
            if name not in scores:
                kept[name] = units
                continue
            above = int((scores[name] >= self._threshold(training)).sum())
            remain = min(len(units), max(training.goal[name], above))
            order = torch.argsort(scores[name], descending=True, stable=True)[:remain]
            kept[name] = units[order.numpy()]
        return Mask(kept, training.mask.sizes)

    @staticmethod
    def _threshold(training: ScoreTraining) -> float:
        assert isinstance(training.options, AhnpOptions)
        return training.options.threshold

    def scores(self, training: ScoreTraining) -> ScoreMask:
        """Its mean score while its layer was pruned, nothing once it was gone: all leave at about tau, early or late.

        No pruned unit is above one that stayed.
        """
        return training.keeper.mean().reconciled(training.mask)

    def tell(self, training: ScoreTraining, scores: dict[str, torch.Tensor]) -> None:
        o, threshold, goal = training.options, self._threshold(training), sum(training.goal.values())
        left = self.kept(training, scores).n_kept - goal
        if left:
            log.warning(
                "ahnp: %d of the %d units to go score more than threshold=%g to the end, and are cut at once: "
                "raise score_l1=%g or score_share=%g",
                left, training.mask.n_units - goal, threshold, o.score_l1, o.score_share,
            )  # fmt: skip


register_method(AutomaticPruning())

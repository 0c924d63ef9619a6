"""Automatic head and node pruning by learnt scores and a threshold (MVP, Algorithm 3)."""

from __future__ import annotations

import logging

import torch

from ..masks.mask import Mask
from ..masks.scores import ScoreMask
from .learnt import LearntPruning, ScoreTraining
from .method import register_method

log = logging.getLogger(__name__)


class AutomaticPruning(LearntPruning):
    """Units whose score falls below tau go after each step, until each layer has reached the ratio."""

    name = "ahnp"
    reference = "Meta-Vote Pruning, Algorithm 3; after Yu et al., 2022, Width & Depth Pruning for Vision Transformers"

    def kept(self, training: ScoreTraining, scores: dict[str, torch.Tensor]) -> Mask:
        kept = {}
        for name, units in training.mask.items():
            if name not in scores:
                kept[name] = units
                continue
            above = int((scores[name] >= training.options.threshold).sum())
            remain = min(len(units), max(training.goal[name], above))
            order = torch.argsort(scores[name], descending=True, stable=True)[:remain]
            kept[name] = units[order.numpy()]
        return Mask(kept, training.mask.sizes)

    def scores(self, training: ScoreTraining) -> ScoreMask:
        """Its mean score while its layer was pruned, nothing once it was gone: all leave at about tau, early or late.

        No pruned unit is above one that stayed.
        """
        return training.keeper.mean().agreeing(training.mask)

    def tell(self, training: ScoreTraining, scores: dict[str, torch.Tensor]) -> None:
        o, goal = training.options, sum(training.goal.values())
        left = self.kept(training, scores).n_kept - goal
        if left:
            log.warning(
                "ahnp: %d of the %d units to go score more than threshold=%g to the end, and are cut at once: "
                "raise score_l1=%g or score_share=%g",
                left, training.mask.n_units - goal, o.threshold, o.score_l1, o.score_share,
            )  # fmt: skip


register_method(AutomaticPruning())

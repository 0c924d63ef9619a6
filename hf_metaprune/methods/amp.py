"""Automatic mask pruning (SMSP's AMP): learn scores for all units of the whole network, then prune once."""

from __future__ import annotations

import torch

from ..masks.mask import Mask
from .learned_scores import LearnedScorePruning, ScoreTraining
from .method import register_method


class AutomaticMaskPruning(LearnedScorePruning):
    """Pruning of the units with the lowest scores, in one cut after all scores were learned.

    All units stay until then, so that their scores come from the same training steps.
    """

    name = "amp"
    reference = (
        "SMSP (arXiv 2307.04365); the summary in the paper is all that is known of AMP: see docs/explanation/methods.md"
    )

    def mask_after_step(self, training: ScoreTraining, scores: dict[str, torch.Tensor]) -> Mask:
        return training.mask


register_method(AutomaticMaskPruning())

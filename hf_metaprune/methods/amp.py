"""Automatic mask pruning (SMSP's AMP): scores learnt for all units of the whole network, then one cut."""

from __future__ import annotations

import torch

from ..masks.mask import Mask
from .learned_scores import LearnedScorePruning, ScoreTraining
from .method import register_method


class AutomaticMaskPruning(LearnedScorePruning):
    """All units stay while scores are learnt, so that those of all are of one moment; then the lowest go at once."""

    name = "amp"
    reference = "SMSP (arXiv 2307.04365), of whose AMP only a summary was to be had: see docs/explanation/methods.md"

    def kept(self, training: ScoreTraining, scores: dict[str, torch.Tensor]) -> Mask:
        return training.mask


register_method(AutomaticMaskPruning())

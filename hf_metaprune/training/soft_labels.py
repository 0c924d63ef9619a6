"""Soft labels: a teacher's answers to images without labels, for distillation (Hinton et al., 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..data.images import ImageSet


@dataclass(frozen=True)
class SoftLabels:
    """Images without labels, and a teacher's logits for them.

    Example:
        >>> from hf_metaprune.data.preprocessing import Preprocessing
        >>> photos = ImageSet(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([-1, -1]), Preprocessing())
        >>> soft_labels = SoftLabels(photos, torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        >>> soft_labels.loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), temperature=2.0).item()
        0.0
    """

    images: ImageSet
    """The images; their targets are not used."""
    logits: torch.Tensor
    """The teacher's logits: float32 (images, classes)."""

    def loss(self, logits: torch.Tensor, rows: torch.Tensor, temperature: float) -> torch.Tensor:
        """Return the mean divergence of logits from the teacher's, times the squared temperature.

        Args:
            logits: float (rows, classes).
            rows: numbers of the images, int64 (rows,).
            temperature: what both logits are divided by.
        """
        teacher = self.logits[rows].to(logits.device)
        log_shares, teacher_log_shares = ((values / temperature).log_softmax(1) for values in (logits, teacher))
        divergence = F.kl_div(log_shares, teacher_log_shares, log_target=True, reduction="batchmean")
        return divergence * temperature**2

"""The images that a model is most wrong about: what people look at first."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from ..data.images import ImageSet

MAX_MISTAKES = 12
THUMBNAIL_SIDE = 160
"""Most mistakes that are kept, and pixels of the longer side of their pictures."""


@dataclass(frozen=True)
class Mistake:
    """A test image that was taken for another class: what it is, what it was taken for, how surely, and a thumbnail."""

    label: str
    predicted: str
    score: float
    jpeg: bytes


def worst_mistakes(logits: torch.Tensor, images: ImageSet, labels: Sequence[str]) -> list[Mistake]:
    """The wrong answers that the model gives most probability, the surest first.

    Args:
        logits: float (n, labels), of the n images.
    """
    scores, predicted = logits.float().softmax(1).max(1) if len(logits) else (torch.empty(0), torch.empty(0))
    wrong = torch.nonzero(predicted != images.targets).flatten()
    order = wrong[torch.argsort(scores[wrong], descending=True, stable=True)][:MAX_MISTAKES]
    return [
        Mistake(
            labels[int(images.targets[i])],
            labels[int(predicted[i])],
            round(float(scores[i]), 4),
            thumbnail(images.images[i]),
        )
        for i in order
    ]


def thumbnail(image: torch.Tensor) -> bytes:
    """An image, uint8 (3, height, width), as a small JPEG."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()

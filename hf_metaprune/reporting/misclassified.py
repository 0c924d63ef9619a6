"""The test images that a model classifies wrongly with the most certainty: people look at them first."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from ..data.images import ImageSet

MAX_MISTAKES = 12
"""Most mistakes that are kept."""
THUMBNAIL_SIDE = 160
"""Pixels of the longer side of a thumbnail."""


@dataclass(frozen=True)
class Mistake:
    """A test image that a model classifies wrongly."""

    label: str
    """The true class."""
    predicted_label: str
    """The class that the model predicts."""
    score: float
    """The probability of the predicted class, in [0, 1]."""
    jpeg: bytes
    """A thumbnail of the image, as a JPEG file."""


def worst_mistakes(logits: torch.Tensor, images: ImageSet, labels: Sequence[str]) -> list[Mistake]:
    """Return the wrong predictions with the highest probability, the highest first.

    Args:
        logits: float (images, labels), the outputs of the model.
        images: the test images with their true classes.
        labels: the class labels, in the order of the logits.

    Returns:
        At most `MAX_MISTAKES` mistakes.
    """
    scores, predictions = logits.float().softmax(1).max(1) if len(logits) else (torch.empty(0), torch.empty(0))
    indices = torch.nonzero(predictions != images.targets).flatten()
    order = indices[torch.argsort(scores[indices], descending=True, stable=True)][:MAX_MISTAKES]
    return [
        Mistake(
            labels[int(images.targets[i])],
            labels[int(predictions[i])],
            round(float(scores[i]), 4),
            thumbnail(images.images[i]),
        )
        for i in order
    ]


def thumbnail(image: torch.Tensor) -> bytes:
    """Return an image, uint8 (3, height, width), as a small JPEG file."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()

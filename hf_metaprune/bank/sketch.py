"""Sketches: what an entry would say of an image, guessed from the base's features of it, in about a kilobyte.

LEEP needs a forward pass of every entry, and thus the weights of every entry. A sketch is a linear map from the base's
features to the entry's logits, fitted once on images that the bank's maker has; with it one forward pass of the base
guesses the LEEP of every entry from the index alone (docs/explanation/methods.md).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from ..data.images import ImageSet
from ..errors import FormatError
from ..models.base_model import BaseModel
from ..models.modeling import MetaPrunedForImageClassification
from ..sizing.cost_model import count_flops
from ..training.forward import extract_features, predict_logits

MAX_FEATURES = 256
IMAGES = 2000
"""Reference images that sketches are fitted on, about equally many of each class."""
LAMBDA = 0.15  # ridge penalty, as a share of the reference images; 0.05 to 0.5 do about equally well
SEED = 0


class BaseFeatures:
    """The base's pooled features of images, at most `MAX_FEATURES` of them: more are projected at random."""

    def __init__(self, base: BaseModel, device: torch.device) -> None:
        self.model, self.device = base.whole(), device

    def __call__(self, images: ImageSet) -> np.ndarray:
        """float32 (images, features)."""
        return project(extract_features(self.model, images, self.device, "auto").float().numpy())

    def flops(self, images: ImageSet) -> int:
        """FLOPs that they take."""
        return len(images) * count_flops(self.model, images.images[:1])[0]


def project(features: np.ndarray) -> np.ndarray:
    """Features (n, d) as they are, or, where d is large, their products with `MAX_FEATURES` random directions."""
    size = features.shape[1]
    return features if size <= MAX_FEATURES else features @ _directions(size)


@cache
def _directions(size: int) -> np.ndarray:
    # RandomState, unlike the newer generators, is promised to give the same numbers for ever
    signs = np.random.RandomState(SEED).randint(0, 2, (size, MAX_FEATURES))
    return ((2 * signs - 1) / np.sqrt(size)).astype(np.float32)


class Sketcher:
    """Makes the sketches of a bank's entries, from the same reference images for each.

    Args:
        images: reference images; their labels are only used to draw as many of each class.
    """

    def __init__(self, base: BaseModel, images: ImageSet, device: torch.device) -> None:
        self.images, self.device = images.stratified(IMAGES, SEED), device
        x = BaseFeatures(base, device)(self.images).astype(np.float64)
        self.mean, self.scale = x.mean(0), x.std(0) + 1e-6
        x = (x - self.mean) / self.scale
        self.solve = np.linalg.solve(x.T @ x + LAMBDA * len(x) * np.eye(x.shape[1]), x.T)

    def __call__(self, model: MetaPrunedForImageClassification) -> bytes:
        """The sketch of an entry's model."""
        logits = predict_logits(model, self.images, self.device, "auto").double().numpy()
        logits -= logits.mean(1, keepdims=True)  # a constant added to all logits means nothing
        bias = logits.mean(0)
        weight = (self.solve @ (logits - bias)) / self.scale[:, None]
        return pack_sketch(np.vstack([weight, bias - self.mean @ weight]))


def pack_sketch(sketch: np.ndarray) -> bytes:
    """A map (features + 1, classes), its last row the bias, in 8 bits a value.

    Per class, in float16: the scale of its weights, and its bias; then the weights as int8, feature by feature.
    """
    weight, bias = sketch[:-1], sketch[-1]
    scale = np.maximum(np.abs(weight).max(0) / 127, 1e-7).astype("<f2")
    steps = np.clip(np.round(weight / scale.astype(np.float64)), -127, 127)
    return scale.tobytes() + bias.astype("<f2").tobytes() + steps.astype("i1").tobytes()


def check_sketch(packed: bytes, classes: int) -> None:
    """Check the length of a packed sketch.

    Raises:
        FormatError: it cannot be one of so many classes.
    """
    rows, rest = divmod(len(packed), classes)
    if rest or not 4 < rows <= MAX_FEATURES + 4:
        raise FormatError(f"a sketch of {len(packed)} bytes does not fit {classes} classes")


def unpack_sketch(packed: bytes, classes: int) -> np.ndarray:
    """The inverse of `pack_sketch`: float32 (features + 1, classes).

    Raises:
        FormatError: the length does not fit, or a value is not finite.
    """
    check_sketch(packed, classes)
    head = 4 * classes
    scale, bias = np.frombuffer(packed[:head], "<f2").astype(np.float32).reshape(2, classes)
    weight = np.frombuffer(packed[head:], "i1").reshape(-1, classes) * scale
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise FormatError("a sketch has values that are not finite")
    return np.vstack([weight, bias])


def guess_probabilities(features: np.ndarray, sketch: np.ndarray) -> np.ndarray:
    """What an entry probably says of images: softmax of the sketch's logits, (images, classes).

    Raises:
        FormatError: the sketch is of other features.
    """
    if len(sketch) != features.shape[1] + 1:
        raise FormatError(
            f"a sketch of {len(sketch) - 1} features does not fit the base, which has {features.shape[1]}"
        )
    logits = features @ sketch[:-1] + sketch[-1]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)

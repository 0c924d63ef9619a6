"""Sketches: guesses of an entry's outputs from the base's features of an image, in about a kilobyte.

LEEP needs a forward pass of every entry, and thus the weights of every entry. A sketch is a linear map from the base's
features to the entry's logits. It is fitted once, on images that the bank's maker has. With sketches one forward pass
of the base gives an estimate of the LEEP of every entry, from the index alone (docs/explanation/methods.md).
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
"""Most features of a sketch; more are projected at random."""
REFERENCE_IMAGES = 2000
"""Reference images that sketches are fitted on, about equally many per class."""
RIDGE_PENALTY = 0.15  # ridge penalty, as a share of the reference images; 0.05 to 0.5 do about equally well
SEED = 0


class BaseFeatures:
    """The base's pooled features of images, projected to at most `MAX_FEATURES`.

    Args:
        base: the base model of the bank.
        device: where to compute.
    """

    def __init__(self, base: BaseModel, device: torch.device) -> None:
        self.model, self.device = base.whole(), device

    def __call__(self, images: ImageSet) -> np.ndarray:
        """Return the features of images: float32 (images, features)."""
        return project_features(extract_features(self.model, images, self.device, "auto").float().numpy())

    def flops(self, images: ImageSet) -> int:
        """Return the FLOPs of the forward passes for these images."""
        return len(images) * count_flops(self.model, images.images[:1])[0]


def project_features(features: np.ndarray) -> np.ndarray:
    """Project features to `MAX_FEATURES` random directions if there are more.

    Args:
        features: float32 (images, features).

    Returns:
        float32 (images, at most `MAX_FEATURES`).
    """
    size = features.shape[1]
    return features if size <= MAX_FEATURES else features @ _random_directions(size)


@cache
def _random_directions(size: int) -> np.ndarray:
    # numpy promises that RandomState, unlike its newer generators, always gives the same numbers
    signs = np.random.RandomState(SEED).randint(0, 2, (size, MAX_FEATURES))
    return ((2 * signs - 1) / np.sqrt(size)).astype(np.float32)


class Sketcher:
    """A maker of sketches: called with an entry's model, it returns the packed sketch.

    A sketch is a ridge regression from the base's standardized features to the model's centered logits. All sketches
    of a bank are fitted on the same reference images.

    Args:
        base: the base model of the bank.
        images: reference images; their labels are only used to draw equally many per class.
        device: where to compute.
    """

    def __init__(self, base: BaseModel, images: ImageSet, device: torch.device) -> None:
        self.images, self.device = images.stratified(REFERENCE_IMAGES, SEED), device
        features = BaseFeatures(base, device)(self.images).astype(np.float64)
        self.mean, self.scale = features.mean(0), features.std(0) + 1e-6
        features = (features - self.mean) / self.scale
        self.solution = np.linalg.solve(
            features.T @ features + RIDGE_PENALTY * len(features) * np.eye(features.shape[1]), features.T
        )

    def __call__(self, model: MetaPrunedForImageClassification) -> bytes:
        """Return the packed sketch of an entry's model."""
        logits = predict_logits(model, self.images, self.device, "auto").double().numpy()
        logits -= logits.mean(1, keepdims=True)  # softmax ignores a constant that is added to all logits
        bias = logits.mean(0)
        weight = (self.solution @ (logits - bias)) / self.scale[:, None]
        return pack_sketch(np.vstack([weight, bias - self.mean @ weight]))


def pack_sketch(sketch: np.ndarray) -> bytes:
    """Pack a linear map into 8 bits per weight.

    Args:
        sketch: float (features + 1, classes); the last row is the bias.

    Returns:
        First the scales of the classes' weights and their biases, as little-endian float16; then the weights as int8,
        feature by feature.
    """
    weight, bias = sketch[:-1], sketch[-1]
    scale = np.maximum(np.abs(weight).max(0) / 127, 1e-7).astype("<f2")
    steps = np.clip(np.round(weight / scale.astype(np.float64)), -127, 127)
    return scale.tobytes() + bias.astype("<f2").tobytes() + steps.astype("i1").tobytes()


def check_sketch(packed_sketch: bytes, classes: int) -> None:
    """Check the length of a packed sketch.

    Raises:
        FormatError: a sketch of so many classes cannot have this length.
    """
    rows, remainder = divmod(len(packed_sketch), classes)
    if remainder or not 4 < rows <= MAX_FEATURES + 4:
        raise FormatError(f"a sketch of {len(packed_sketch)} bytes does not fit {classes} classes")


def unpack_sketch(packed_sketch: bytes, classes: int) -> np.ndarray:
    """Unpack what `pack_sketch` packed.

    Args:
        packed_sketch: the packed sketch.
        classes: number of classes of the entry.

    Returns:
        float32 (features + 1, classes); the last row is the bias.

    Raises:
        FormatError: the length does not fit, or a value is not finite.
    """
    check_sketch(packed_sketch, classes)
    head = 4 * classes
    scale, bias = np.frombuffer(packed_sketch[:head], "<f2").astype(np.float32).reshape(2, classes)
    weight = np.frombuffer(packed_sketch[head:], "i1").reshape(-1, classes) * scale
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise FormatError("a sketch has values that are not finite")
    return np.vstack([weight, bias])


def guess_probabilities(features: np.ndarray, sketch: np.ndarray) -> np.ndarray:
    """Estimate the probabilities that an entry gives to its classes, by the softmax of its sketch's logits.

    Args:
        features: float32 (images, features), from `BaseFeatures`.
        sketch: float32 (features + 1, classes), from `unpack_sketch`.

    Returns:
        float32 (images, classes), in [0, 1]; each row sums to 1.

    Raises:
        FormatError: the sketch has another number of features.
    """
    if len(sketch) != features.shape[1] + 1:
        raise FormatError(
            f"a sketch of {len(sketch) - 1} features does not fit the base, which has {features.shape[1]}"
        )
    logits = features @ sketch[:-1] + sketch[-1]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)

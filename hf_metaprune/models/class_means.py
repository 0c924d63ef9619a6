"""Class means: the mean features of the base for each class of a model, which tell other tasks what a class is like."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import FormatError

MAX_MEAN_FEATURES, MAX_BYTES = 65_536, 300_000
"""Most features of a base, and most bytes of packed means; models of more classes have none."""
HEAD_BYTES = 6
"""Bytes per class before the values: a count as uint32, a scale as float16."""


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """The mean features of the base, over the training images of each class.

    Example:
        >>> means = ClassMeans(np.array([[0.0, 1.27], [0.5, -0.5]]), np.array([5, 20]))
        >>> restored = ClassMeans.unpack(means.pack(), classes=2)
        >>> restored.counts.tolist(), restored.means.round(1).tolist()
        ([5, 20], [[0.0, 1.3], [0.5, -0.5]])
    """

    means: np.ndarray
    """float (classes, features)."""
    counts: np.ndarray
    """int (classes,): the images of each class."""

    @classmethod
    def of(cls, features: np.ndarray, targets: np.ndarray, classes: int) -> ClassMeans:
        """Return the means of features by class.

        Args:
            features: float (images, features).
            targets: int (images,), from 0 to ``classes - 1``; the mean of a class without images is 0.
            classes: the number of classes.
        """
        sums = np.zeros((classes, features.shape[1]))
        np.add.at(sums, targets, features)
        counts = np.bincount(targets, minlength=classes)
        return cls(sums / np.maximum(counts, 1)[:, None], counts)

    def select(self, classes: Sequence[int]) -> ClassMeans:
        """Return the means of some classes, in that order."""
        return ClassMeans(self.means[list(classes)], self.counts[list(classes)])

    def pack(self) -> bytes | None:
        """Return the means in 8 bits per value; None if they are more than `MAX_BYTES`.

        Returns:
            In little endian the counts as uint32 and the scales as float16, of all classes; then the values as int8,
            class by class. A value times its class's scale is a feature.
        """
        scales = np.maximum(np.abs(self.means).max(1) / 127, 1e-7).astype("<f2")
        steps = np.clip(np.round(self.means / scales[:, None].astype(np.float64)), -127, 127)
        counts = np.minimum(self.counts, np.iinfo("<u4").max).astype("<u4")
        packed = counts.tobytes() + scales.tobytes() + steps.astype("i1").tobytes()
        return packed if len(packed) <= MAX_BYTES else None

    @classmethod
    def unpack(cls, packed: bytes, classes: int, rows: Sequence[int] | None = None) -> ClassMeans:
        """Unpack what `pack` packed.

        Args:
            packed: the packed means.
            classes: the number of classes.
            rows: the classes to return; None: all.

        Raises:
            FormatError: the length does not fit, or a scale is not finite.
        """
        n_features = count_features(packed, classes)
        counts, halves, steps = np.split(np.frombuffer(packed, np.uint8), [4 * classes, HEAD_BYTES * classes])
        chosen = np.arange(classes) if rows is None else np.asarray(rows)
        scales = halves.view("<f2").astype(np.float32)[chosen]
        if not np.isfinite(scales).all():
            raise FormatError("class means have scales that are not finite")
        means = steps.view("i1").reshape(classes, n_features)[chosen] * scales[:, None]
        return cls(means, counts.view("<u4").astype(np.int64)[chosen])


def count_features(packed: bytes, classes: int) -> int:
    """Return how many features packed class means have.

    Raises:
        FormatError: means of so many classes cannot have this length.
    """
    n_bytes, remainder = divmod(len(packed), max(1, classes))
    if remainder or len(packed) > MAX_BYTES or not 0 < n_bytes - HEAD_BYTES <= MAX_MEAN_FEATURES:
        raise FormatError(f"class means of {len(packed)} bytes do not fit {classes} classes")
    return n_bytes - HEAD_BYTES


def to_text(packed: bytes | None) -> str | None:
    """Return packed class means, if there are any, as text (base64)."""
    return base64.b64encode(packed).decode() if packed is not None else None


def from_text(text: object, classes: int) -> bytes:
    """Return packed class means of a text.

    Args:
        text: the text.
        classes: the number of classes.

    Raises:
        FormatError: it is no such text, or its length does not fit.
    """
    try:
        packed = base64.b64decode(str(text), validate=True)
    except ValueError as error:
        raise FormatError("its class means cannot be read") from error
    count_features(packed, classes)
    return packed

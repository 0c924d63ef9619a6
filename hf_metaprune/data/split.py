"""A split of a data set: undecoded images, each with its label as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError


class UnlabeledError(DataError):
    """An error for a split that has images without a label."""


@dataclass
class Split:
    """The undecoded images of one split, with their labels."""

    fetch: Callable[[int], Any]
    """Returns the i-th image, in any form that `open_image` reads."""
    labels: list[str]
    """Class name per image."""
    names: list[str]
    """Class names in the order of the task."""
    describe: Callable[[int], str] = str
    """Names the i-th image in messages."""
    unreadable: Sequence[str] = ()
    """Messages about items whose label could not be read; they do not count in `labels`."""

    def __len__(self) -> int:
        return len(self.labels)


def python_value(value: Any) -> Any:
    """Return the number in a tensor or array of one number, and any other value as it is."""
    return value.item() if hasattr(value, "item") and math.prod(value.shape) == 1 else value


def convert_labels(values: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Return labels as text, and the class names: numbers in their order, then text in alphabetical order.

    Raises:
        UnlabeledError: a label is missing.
        DataError: a label is neither text nor a number (a list, one-hot, a box).
    """
    labels = [python_value(value) for value in values]
    n_missing = sum(is_missing(label) for label in labels)
    if n_missing:
        raise UnlabeledError(f"{n_missing} images have no label")
    unusable = next((label for label in labels if not isinstance(label, (str, int, float))), None)
    if unusable is not None:
        raise DataError(f"label {str(unusable)[:60]!r} is neither text nor a number: give one class for each image")
    numbers = {str(label): label for label in labels if not isinstance(label, str)}
    names = sorted(numbers, key=numbers.__getitem__)
    texts = {label for label in labels if isinstance(label, str)}
    return [str(label) for label in labels], names + sorted(texts - set(names))


def is_missing(label: Any) -> bool:
    """Return whether a label is None, or the NaN that pandas writes in a column of numbers."""
    return label is None or (isinstance(label, float) and math.isnan(label))

"""Tasks: an ordered list of class labels with their WordNet synsets, and the images they come with."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..errors import DataError
from ..text import JOINERS
from .images import ImageSet
from .synsets import IMAGENET_LABEL, canonical_synset, is_synset_id

MAX_LABEL_LENGTH = 200
MAX_LABELS = 10_000
HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of characters that are invisible, or that move what is shown."""


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Check the labels of a task, and return them as a tuple.

    Raises:
        DataError: there are fewer than two or too many labels, or a label is repeated, empty, too long, or has control
            characters.
    """
    labels = tuple(labels)
    if not 2 <= len(labels) <= MAX_LABELS:
        raise DataError(f"a task needs 2 to {MAX_LABELS} classes, not {len(labels)}")
    for label in labels:
        if not isinstance(label, str) or not label.strip() or len(label) > MAX_LABEL_LENGTH:
            raise DataError(f"label {str(label)[:40]!r}: must be text of 1 to {MAX_LABEL_LENGTH} characters")
        if not label.isprintable() and any(
            unicodedata.category(c) in HIDDEN_CATEGORIES and c not in JOINERS for c in label
        ):
            raise DataError(f"label {label[:40]!r} has control characters")
    if len(set(labels)) < len(labels):
        repeated_labels = sorted(label for label, count in Counter(labels).items() if count > 1)
        raise DataError(f"labels must differ; repeated: {', '.join(repeated_labels[:5])}")
    return labels


@dataclass(frozen=True)
class Task:
    """The classes of a task, in order.

    Raises:
        DataError: labels or synsets are not valid; see `check_labels`.

    Example:
        >>> pets = Task(("cat", "dog"), synsets=(None, "dog.n.01"))
        >>> pets.matches(Task(("Dog", "fox")))
        [[], [0]]
        >>> others = Task(("Dog", "fox")).positions()
        >>> pets.find(0, others), pets.find(1, others)
        (set(), {0})
    """

    labels: tuple[str, ...]
    """Names of the classes."""
    synsets: tuple[str | None, ...] = ()
    """A WordNet synset id (``dog.n.01``), an ImageNet id (``n02084071``) or None per class; empty for None each."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", check_labels(self.labels))
        synsets = tuple(self.synsets) or (None,) * len(self.labels)
        if len(synsets) != len(self.labels):
            raise DataError(f"{len(synsets)} synsets for {len(self.labels)} labels: give one (or null) for each")
        for synset in synsets:
            if synset is not None and not (isinstance(synset, str) and is_synset_id(synset)):
                raise DataError(f"synset {str(synset)[:40]!r}: give ids such as dog.n.01 or n02084071")
        object.__setattr__(self, "synsets", synsets)

    def matches(self, other: Task) -> list[list[int]]:
        """Find the classes of another task that mean the same.

        Two classes mean the same if they have the same synset, or the same label up to case and underscores. A label
        may itself be a synset id.

        Args:
            other: the other task.

        Returns:
            Per class, the positions of such classes in `other`, sorted: usually one or none.
        """
        positions = other.positions()
        return [sorted(self.find(i, positions)) for i in range(len(self.labels))]

    def positions(self) -> dict[tuple[str, str], list[int]]:
        """Return the positions of the classes by each of their names, for `find` of many other tasks.

        Returns:
            Positions by a kind of name (label or synset) and the name.
        """
        positions: dict[tuple[str, str], list[int]] = {}
        for j in range(len(self.labels)):
            for name in self._names(j):
                positions.setdefault(name, []).append(j)
        return positions

    def find(self, i: int, positions: Mapping[tuple[str, str], Sequence[int]]) -> set[int]:
        """Return where a class of this task is in another one.

        Args:
            i: the class.
            positions: the `positions` of the other task.

        Returns:
            The positions of such classes in the other task.
        """
        return {j for name in self._names(i) for j in positions.get(name, ())}

    def _names(self, i: int) -> list[tuple[str, str]]:
        """Return the normalized label of class i, and its synsets by their WordNet names."""
        label = self.labels[i].replace("_", " ").strip().casefold()
        match = IMAGENET_LABEL.match(self.labels[i])
        candidates = (self.synsets[i], match[1] if match else self.labels[i])
        ids = [text for text in candidates if text and is_synset_id(text)]
        return [("label", label), *(("synset", canonical_synset(text)) for text in ids)]


@dataclass
class TaskData:
    """A task with its images.

    Example:
        Three of the classes, with at most 5 training images per class::

            data = read_task_data("photos", base.preprocessing)
            small = data.select([0, 2, 4], per_class=5)
            print(small.images_per_class)  # 5.0
    """

    task: Task
    """The classes."""
    train: ImageSet
    """Images to learn from."""
    evaluation: ImageSet
    """Images to measure the accuracy on; may be empty."""
    evaluation_split: str = "test"
    """What the evaluation images are: the name of their split, or how they were chosen."""
    source: str = "unnamed"
    """Name of the data set for reports and cards; never a path."""
    skipped_images: list[str] = field(default_factory=list)
    """A line per image that could not be read: which one, and why."""

    def select(self, classes: Sequence[int], per_class: int | None = None, seed: int = 0) -> TaskData:
        """Return the task of some of the classes.

        Args:
            classes: indices of the classes, in the order of the new task.
            per_class: most training images per class, if that is limited.
            seed: seed of the choice of images.

        Returns:
            The task, with targets from 0 on in the order of `classes`.
        """
        task = Task(tuple(self.task.labels[c] for c in classes), tuple(self.task.synsets[c] for c in classes))
        train, evaluation = pick_classes(self.train, classes), pick_classes(self.evaluation, classes)
        if per_class is not None:
            train = train.stratified(per_class * len(classes), seed, per_class)
        return TaskData(task, train, evaluation, self.evaluation_split, self.source)

    @property
    def images_per_class(self) -> float:
        """Mean number of training images per class."""
        return len(self.train) / len(self.task.labels)


def pick_classes(images: ImageSet, classes: Sequence[int]) -> ImageSet:
    """Return the images of some classes, relabeled 0, 1, ... in the order of `classes`."""
    lookup = torch.full((max(int(images.targets.max()), *classes) + 1,), -1, dtype=torch.long)
    lookup[torch.tensor(list(classes))] = torch.arange(len(classes))
    new_targets = lookup[images.targets]
    subset = images.subset(torch.nonzero(new_targets >= 0).flatten())
    subset.targets = lookup[subset.targets]
    return subset


def draw_tasks(classes: Sequence[int], size: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """Draw different tasks at random (MVP, Section 3.1).

    The i-th task does not depend on `count`, so that a bank can grow.

    Args:
        classes: indices to draw from.
        size: classes per task, drawn without replacement.
        count: number of tasks.
        seed: seed of the draws.

    Returns:
        Sorted class indices per task.

    Raises:
        DataError: there are not enough classes.
    """
    if math.comb(len(classes), size) < count:
        raise DataError(f"{count} different tasks of {size} classes cannot be drawn from {len(classes)} classes")
    rng = np.random.default_rng(seed)
    tasks: dict[tuple[int, ...], None] = {}
    while len(tasks) < count:
        task = tuple(sorted(rng.choice(classes, size, replace=False).tolist()))
        tasks.setdefault(task, None)
    return list(tasks)

"""Tasks: an ordered list of class labels with their WordNet synsets, and the images they come with."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..errors import DataError
from .images import ImageSet
from .synsets import IMAGENET_LABEL, canonical, is_id

MAX_LABEL_LENGTH = 200
MAX_LABELS = 10_000
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of what a reader does not see, or sees where it is not."""
JOINERS = "\u200c\u200d"  # Persian and Indic words have them, and many emoji


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels as a tuple, or an error.

    Raises:
        DataError: fewer than two, repeated, empty, too long, or with control characters.
    """
    labels = tuple(labels)
    if not 2 <= len(labels) <= MAX_LABELS:
        raise DataError(f"a task needs 2 to {MAX_LABELS} classes, not {len(labels)}")
    for label in labels:
        if not isinstance(label, str) or not label.strip() or len(label) > MAX_LABEL_LENGTH:
            raise DataError(f"label {str(label)[:40]!r}: must be text of 1 to {MAX_LABEL_LENGTH} characters")
        if any(unicodedata.category(c) in HIDDEN and c not in JOINERS for c in label):
            raise DataError(f"label {label[:40]!r} has control characters")
    repeated = sorted(label for label, count in Counter(labels).items() if count > 1)
    if repeated:
        raise DataError(f"labels must differ; repeated: {', '.join(repeated[:5])}")
    return labels


@dataclass(frozen=True)
class Task:
    """Class labels in order, and for each an explicit WordNet synset id (``dog.n.01``) or None."""

    labels: tuple[str, ...]
    synsets: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", check_labels(self.labels))
        synsets = tuple(self.synsets) or (None,) * len(self.labels)
        if len(synsets) != len(self.labels):
            raise DataError(f"{len(synsets)} synsets for {len(self.labels)} labels: give one (or null) for each")
        for synset in synsets:
            if synset is not None and not (isinstance(synset, str) and is_id(synset)):
                raise DataError(f"synset {str(synset)[:40]!r}: give ids such as dog.n.01 or n02084071")
        object.__setattr__(self, "synsets", synsets)

    def matches(self, other: Task) -> list[list[int]]:
        """For each class, the positions of the classes of `other` that mean the same; usually one, or none.

        They have the same synset, or the same label but for case and underscores. A label may be a synset's id.
        """
        found: dict[tuple[str, str], list[int]] = {}
        for j in range(len(other.labels)):
            for name in other._names(j):
                found.setdefault(name, []).append(j)
        return [sorted({j for name in self._names(i) for j in found.get(name, ())}) for i in range(len(self.labels))]

    def _names(self, i: int) -> list[tuple[str, str]]:
        label = self.labels[i].replace("_", " ").strip().casefold()
        told = IMAGENET_LABEL.match(self.labels[i])
        ids = [text for text in (self.synsets[i], told[1] if told else self.labels[i]) if text and is_id(text)]
        return [("label", label), *(("synset", canonical(text)) for text in ids)]


@dataclass
class TaskData:
    """A task with its images: `train` to learn from, `evaluation` to measure on.

    `source` names the data set for reports and cards (never a path); `evaluation_split` says what `evaluation` is.
    """

    task: Task
    train: ImageSet
    evaluation: ImageSet
    evaluation_split: str = "test"
    source: str = "unnamed"
    skipped: list[str] = field(default_factory=list)

    def select(self, classes: Sequence[int], per_class: int | None = None, seed: int = 0) -> TaskData:
        """The task of only these classes, in this order; at most `per_class` training images of each."""
        task = Task(tuple(self.task.labels[c] for c in classes), tuple(self.task.synsets[c] for c in classes))
        train, evaluation = pick_classes(self.train, classes), pick_classes(self.evaluation, classes)
        if per_class is not None:
            train = train.stratified(per_class * len(classes), seed, per_class)
        return TaskData(task, train, evaluation, self.evaluation_split, self.source)

    @property
    def images_per_class(self) -> float:
        """Mean number of training images a class."""
        return len(self.train) / len(self.task.labels)


def pick_classes(images: ImageSet, classes: Sequence[int]) -> ImageSet:
    """The images of `classes`, relabeled 0, 1, ... in that order."""
    lookup = torch.full((max(int(images.targets.max()), *classes) + 1,), -1, dtype=torch.long)
    lookup[torch.tensor(list(classes))] = torch.arange(len(classes))
    relabeled = lookup[images.targets]
    chosen = images.subset(torch.nonzero(relabeled >= 0).flatten())
    chosen.targets = lookup[chosen.targets]
    return chosen


def draw_tasks(classes: Sequence[int], size: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """`count` different tasks of `size` classes each, drawn without replacement (MVP, Section 3.1).

    The i-th task does not depend on `count`, so that a bank can grow.

    Raises:
        DataError: there are not enough classes.
    """
    if math.comb(len(classes), size) < count:
        raise DataError(f"{count} different tasks of {size} classes cannot be drawn from {len(classes)} classes")
    rng = np.random.default_rng(seed)
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < count:
        chosen = tuple(sorted(rng.choice(classes, size, replace=False).tolist()))
        drawn.setdefault(chosen, None)
    return list(drawn)

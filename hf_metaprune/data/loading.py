"""From whatever a user has (a folder, parquet, a datasets or torch data set, a list) to `TaskData`."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .images import ImageSet, decode_images
from .preprocessing import Preprocessing
from .sources import Split, splits_of
from .task import Task, TaskData


def read_task_data(
    source: Any,
    preprocessing: Preprocessing,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    synsets: Sequence[str | None] | None = None,
    evaluation_share: float = 0.2,
    seed: int = 0,
    progress: bool = False,
) -> TaskData:
    """Read, check and decode a labeled image data set.

    Args:
        source: a ``datasets.Dataset`` or ``DatasetDict``, a folder of class folders, parquet file(s) or a folder of
            them, a Hub data set id, a torch data set, or a list of (image, label).
        image_column: the column of images, where it cannot be found by type or name.
        label_column: the column of labels, likewise.
        synsets: WordNet synset ids in the order of the labels, if known.
        evaluation_share: what part of each class is held back if the source has no test or validation split; 0 to
            learn from all images, and measure nothing.

    Raises:
        DataError: nothing there, unknown columns, fewer than two classes, a class with too few images, or more
            than 1% unreadable images.
    """
    with _quiet(not progress):
        splits, name = splits_of(source, image_column, label_column)
    train_name, evaluation_name = [*splits, None][:2]
    assert train_name is not None
    train = splits[train_name]
    names = train.names
    if len(names) < 2:
        raise DataError(f"{name}: all images are of one class, {', '.join(names)}; a task needs at least two")
    task = Task(tuple(names), tuple(synsets) if synsets is not None else ())
    held = splits[evaluation_name] if evaluation_name else None
    if held is not None:
        extra = sorted(set(held.labels) - set(names))
        if extra:
            raise DataError(f"split {evaluation_name!r} has classes that {train_name!r} lacks: {', '.join(extra[:5])}")
    least = 2 if held is None and evaluation_share else 1
    _check_counts(names, train.labels, least)
    images = _decode(train, names, preprocessing, progress)
    if held is not None and evaluation_name:
        _check_counts(names, [names[t] for t in images.targets.tolist()], least)
        evaluation = _decode(held, names, preprocessing, progress)
        skipped = images.skipped + evaluation.skipped
        return TaskData(task, images, evaluation, evaluation_name, name, skipped)
    return hold_back(task, images, evaluation_share, seed, name)


def hold_back(task: Task, images: ImageSet, share: float, seed: int, name: str) -> TaskData:
    """A task whose evaluation is a share of its images, drawn from each class; 0: it learns from all.

    Raises:
        DataError: a class has too few images.
    """
    _check_counts(task.labels, [task.labels[t] for t in images.targets.tolist()], 2 if share else 1)
    if not share:
        return TaskData(task, images, images.subset([]), "the model learnt from all images", name, images.skipped)
    rows = _held_back(images.targets.numpy(), share, seed)
    chosen = np.isin(np.arange(len(images)), rows)
    train_set, evaluation = images.subset(np.flatnonzero(~chosen)), images.subset(rows)
    where = f"{share:.0%} of each class, held back at random"
    return TaskData(task, train_set, evaluation, where, name, images.skipped)


@contextlib.contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Keep the bars of `datasets` off the screen meanwhile."""
    import datasets

    if not quiet or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _check_counts(names: Sequence[str], labels: Sequence[str], least: int) -> None:
    counts = Counter(labels)
    few = [n for n in names if counts[n] < least]
    if few:
        why = " (one to learn from, one to measure on)" if least == 2 else ""
        names_shown = ", ".join(few[:5])
        raise DataError(f"fewer than {least} readable images{why} in: {names_shown}; add images, or remove the class")


def _decode(split: Split, names: Sequence[str], preprocessing: Preprocessing, progress: bool) -> ImageSet:
    index = {n: i for i, n in enumerate(names)}
    targets = np.array([index[label] for label in split.labels], dtype=np.int64)
    return decode_images(split.fetch, targets, preprocessing, split.describe, progress, split.unreadable)


def _held_back(targets: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Row numbers of a stratified share: at least one image of each class, never all of one."""
    rng, rows = np.random.default_rng(seed), []
    for c in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == c))
        rows.append(members[: min(len(members) - 1, max(1, round(share * len(members))))])
    return np.sort(np.concatenate(rows))

"""From a user's images (a folder, parquet, a datasets or torch data set, a list) to `TaskData`."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .images import ImageSet, decode_images
from .preprocessing import Preprocessing
from .sources import read_splits
from .split import Split
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
        source: a ``datasets.Dataset`` or ``DatasetDict``, a folder of class folders, or of photos and a
            ``metadata.csv`` or ``.jsonl`` with the columns ``file_name`` and ``label``, one or more parquet files or a
            folder of them, a Hub data set id, a torch data set, or a list of (image, label).
        preprocessing: how images are resized and cropped; that of the base model.
        image_column: the column of images, if it cannot be found by type or name.
        label_column: the column of labels, if it cannot be found by type or name.
        synsets: a WordNet synset id or None per label, in the order of the labels.
        evaluation_share: share of each class that is held back if the source has no test or validation split; 0 to
            learn from all images, and measure nothing.
        seed: seed of the choice of images that are held back.
        progress: show progress bars.

    Returns:
        The task with its decoded images.

    Raises:
        DataError: there is no image, a column is unknown, there are fewer than two classes, a class has too few
            images, or more than 1% of the images are unreadable.
        OptionError: `source` is empty, or too long for a path.

    Example:
        >>> from hf_metaprune.data.preprocessing import Preprocessing
        >>> from PIL import Image
        >>> red, blue = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")
        >>> pairs = [(red, "warm"), (blue, "cold")] * 5
        >>> data = read_task_data(pairs, Preprocessing(input_size=(3, 32, 32)))
        >>> data.task.labels, data.train.images.shape, len(data.evaluation)
        (('cold', 'warm'), torch.Size([8, 3, 32, 32]), 2)
    """
    with _quiet(not progress):
        splits, name = read_splits(source, image_column, label_column)
    train_name, evaluation_name = [*splits, None][:2]
    assert train_name is not None
    train = splits[train_name]
    names = train.names
    if len(names) < 2:
        raise DataError(f"{name}: all images are of one class, {', '.join(names)}; a task needs at least two")
    task = Task(tuple(names), tuple(synsets) if synsets is not None else ())
    evaluation_split = splits[evaluation_name] if evaluation_name else None
    if evaluation_split is not None:
        extra = sorted(set(evaluation_split.labels) - set(names))
        if extra:
            raise DataError(f"split {evaluation_name!r} has classes that {train_name!r} lacks: {', '.join(extra[:5])}")
    min_count = 2 if evaluation_split is None and evaluation_share else 1
    _check_counts(names, train.labels, min_count)
    images = _decode(train, names, preprocessing, progress)
    if evaluation_split is not None and evaluation_name:
        _check_counts(names, [names[t] for t in images.targets.tolist()], min_count)
        evaluation = _decode(evaluation_split, names, preprocessing, progress)
        skipped_images = images.skipped_images + evaluation.skipped_images
        return TaskData(task, images, evaluation, evaluation_name, name, skipped_images)
    return hold_back(task, images, evaluation_share, seed, name)


def hold_back(task: Task, images: ImageSet, share: float, seed: int, name: str) -> TaskData:
    """Split the images of a task into training and evaluation images.

    Args:
        task: the classes.
        images: images of all classes.
        share: share of each class that is held back for evaluation; 0 to learn from all images.
        seed: seed of the choice.
        name: name of the data set.

    Raises:
        DataError: a class has too few images.
    """
    _check_counts(task.labels, [task.labels[t] for t in images.targets.tolist()], 2 if share else 1)
    if not share:
        return TaskData(
            task, images, images.subset([]), "the model learnt from all images", name, images.skipped_images
        )
    rows = _evaluation_rows(images.targets.numpy(), share, seed)
    is_evaluation = np.isin(np.arange(len(images)), rows)
    train_set, evaluation = images.subset(np.flatnonzero(~is_evaluation)), images.subset(rows)
    description = f"{share:.0%} of each class, held back at random"
    return TaskData(task, train_set, evaluation, description, name, images.skipped_images)


@contextlib.contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Switch off the progress bars of `datasets` meanwhile."""
    import datasets

    if not quiet or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _check_counts(names: Sequence[str], labels: Sequence[str], min_count: int) -> None:
    """Refuse classes with fewer images than `min_count`."""
    counts = Counter(labels)
    small_classes = [name for name in names if counts[name] < min_count]
    if small_classes:
        why = " (one to learn from, one to measure on)" if min_count == 2 else ""
        examples = ", ".join(small_classes[:5])
        raise DataError(f"fewer than {min_count} readable images{why} in: {examples}; add images, or remove the class")


def _decode(split: Split, names: Sequence[str], preprocessing: Preprocessing, progress: bool) -> ImageSet:
    index = {name: i for i, name in enumerate(names)}
    targets = np.array([index[label] for label in split.labels], dtype=np.int64)
    return decode_images(split.fetch, targets, preprocessing, split.describe, progress, split.unreadable)


def _evaluation_rows(targets: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return the rows of a stratified share: at least one image per class, but never all images of a class."""
    rng, rows = np.random.default_rng(seed), []
    for c in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == c))
        rows.append(members[: min(len(members) - 1, max(1, round(share * len(members))))])
    return np.sort(np.concatenate(rows))

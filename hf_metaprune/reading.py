"""From whatever a user has (a folder, parquet, a datasets or torch data set, a list) to `TaskData`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .data import ImageSet, decode_images
from .errors import DataError
from .preprocess import Preprocessing
from .task import Task, TaskData

log = logging.getLogger(__name__)

IMAGE_NAMES = ("image", "img", "pixel_values", "picture", "photo", "jpg", "png")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "category", "cls")
TRAIN_NAMES = ("train", "training")
EVALUATION_NAMES = ("test", "validation", "valid", "val", "dev", "eval")


@dataclass
class Split:
    """Undecoded images of one split: how to fetch the i-th, and every label as a name."""

    fetch: Callable[[int], Any]
    labels: list[str]
    names: list[str]
    describe: Callable[[int], str] = str


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
    """Read, check and decode a labelled image data set.

    Args:
        source: a ``datasets.Dataset`` or ``DatasetDict``, a folder of class folders, parquet file(s) or a folder of
            them, a Hub data set id, a torch data set, or a list of (image, label).
        image_column, label_column: column names, where they cannot be found by type or name.
        synsets: WordNet synset ids in the order of the labels, if known.
        evaluation_share: what part of each class is held back if the source has no test or validation split.

    Raises:
        DataError: nothing there, unknown columns, fewer than two classes, a class with too few images, or more
            than 1% unreadable images.
    """
    with _quiet(not progress):
        splits, name = _splits(source, image_column, label_column)
    train_name = next((n for n in TRAIN_NAMES if n in splits), next(iter(splits)))
    evaluation_name = next((n for n in EVALUATION_NAMES if n in splits and n != train_name), None)
    train = splits[train_name]
    names = train.names
    if len(names) < 2:
        raise DataError(f"found {len(names)} class{'es' if len(names) != 1 else ''}; a task needs at least two")
    task = Task(tuple(names), tuple(synsets) if synsets is not None else ())
    held = splits.get(evaluation_name) if evaluation_name else None
    if held is not None:
        extra = sorted(set(held.labels) - set(names))
        if extra:
            raise DataError(f"split {evaluation_name!r} has classes that {train_name!r} lacks: {', '.join(extra[:5])}")
    _check_counts(names, train.labels, 1 if held is not None else 2)
    images = _decode(train, names, preprocessing, progress)
    _check_counts(names, [names[t] for t in images.targets.tolist()], 1 if held is not None else 2)
    if held is not None and evaluation_name:
        evaluation = _decode(held, names, preprocessing, progress)
        skipped = images.skipped + evaluation.skipped
        return TaskData(task, images, evaluation, evaluation_name, name, skipped)
    rows = _held_back(images.targets.numpy(), evaluation_share, seed)
    chosen = np.isin(np.arange(len(images)), rows)
    train_set, evaluation = images.subset(np.flatnonzero(~chosen)), images.subset(rows)
    where = f"a {evaluation_share:.0%} part of {train_name!r} held back at random"
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
    few = [n for n in names if labels.count(n) < least]
    if few:
        why = " (one to learn from, one to measure on)" if least == 2 else ""
        names_shown = ", ".join(few[:5])
        raise DataError(f"fewer than {least} readable images{why} in: {names_shown}; add images, or remove the class")


def _decode(split: Split, names: Sequence[str], preprocessing: Preprocessing, progress: bool) -> ImageSet:
    index = {n: i for i, n in enumerate(names)}
    targets = np.array([index[label] for label in split.labels], dtype=np.int64)
    return decode_images(split.fetch, targets, preprocessing, split.describe, progress)


def _held_back(targets: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Row numbers of a stratified share: at least one image of each class, never all of one."""
    rng, rows = np.random.default_rng(seed), []
    for c in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == c))
        rows.append(members[: min(len(members) - 1, max(1, round(share * len(members))))])
    return np.sort(np.concatenate(rows))


def _splits(source: Any, image_column: str | None, label_column: str | None) -> tuple[dict[str, Split], str]:
    import datasets

    if isinstance(source, (str, Path)):
        source, name = _load(source)
    elif isinstance(source, datasets.DatasetDict):
        name = _own_name(next(iter(source.values()), None))
    elif isinstance(source, datasets.Dataset):
        name = _own_name(source)
    else:
        return {"train": _pairs(source)}, "unnamed"
    if isinstance(source, datasets.Dataset):
        source = {"train": source}
    found = {n: _columns(d, image_column, label_column) for n, d in source.items() if len(d)}
    if not found:
        raise DataError("the data set has no image")
    return found, name


def _own_name(dataset: Any) -> str:
    """What a data set calls itself; the packaged loaders' names say nothing about it."""
    name = dataset.info.dataset_name if dataset is not None else None
    return name if name and name not in ("parquet", "imagefolder", "arrow", "generator", "json", "csv") else "unnamed"


def _load(source: str | Path) -> tuple[Any, str]:
    """A DatasetDict from a path or a Hub id, and its name."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _load_folder(path), path.name
        if path.is_file():
            if path.suffix != ".parquet":
                raise DataError(f"{path} is a file of unknown kind: give a folder of class folders, or a .parquet file")
            return datasets.load_dataset("parquet", data_files=str(path)), path.stem
        if isinstance(source, Path) or path.is_absolute() or str(source).startswith((".", "~")):
            raise DataError(f"{path} does not exist")
        return datasets.load_dataset(str(source)), str(source)
    except DataError:
        raise
    except (DatasetNotFoundError, FileNotFoundError, ConnectionError, ValueError, OSError) as error:
        raise DataError(f"{source} cannot be read as a data set: {_first_line(error)}") from error
    except datasets.exceptions.DatasetGenerationError as error:
        raise DataError(f"{source} is damaged: {_first_line(error.__cause__ or error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _load_folder(path: Path) -> Any:
    import datasets

    if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
        return datasets.load_from_disk(str(path))
    if any(path.rglob("*.parquet")):
        return datasets.load_dataset("parquet", data_dir=str(path))
    return datasets.load_dataset("imagefolder", data_dir=str(path), drop_labels=False)


def _columns(dataset: Any, image_column: str | None, label_column: str | None) -> Split:
    """One split of a ``datasets.Dataset``, with its image and label columns found."""
    import datasets

    features = dataset.features
    is_image = {n for n, f in features.items() if isinstance(f, datasets.Image)}
    is_label = {n for n, f in features.items() if isinstance(f, datasets.ClassLabel)}
    image = _pick("image", image_column, features, is_image, IMAGE_NAMES)
    label = _pick("label", label_column, features, is_label, LABEL_NAMES)
    if image in is_image:
        dataset = dataset.cast_column(image, datasets.Image(decode=False))
    raw = dataset.with_format(None).select_columns([label])[label]
    missing = [i for i, value in enumerate(raw) if value is None or value == -1]
    if missing:
        raise DataError(f"{len(missing)} rows have no label (the first is row {missing[0]})")
    if label in is_label:
        names = list(features[label].names)
        labels = [names[i] for i in raw]
        names = [n for n in names if n in set(labels)]
    else:
        labels = [str(value) for value in raw]
        names = sorted(set(labels), key=lambda n: (len(n), n) if n.isdigit() else (1 << 30, n))

    def describe(i: int) -> str:
        value = dataset[i][image]
        path = value.get("path") if isinstance(value, dict) else None
        return path or f"row {i}"

    return Split(lambda i: dataset[i][image], labels, names, describe)


def _pick(what: str, asked: str | None, features: Any, by_type: set[str], by_name: Sequence[str]) -> str:
    if asked is not None:
        if asked not in features:
            raise DataError(f"there is no column {asked!r}; columns: {', '.join(features)}")
        return asked
    if len(by_type) == 1:
        return next(iter(by_type))
    for name in by_name:
        if name in (by_type or features):
            return name
    state = f"several {what} columns: {', '.join(sorted(by_type))}" if by_type else f"no {what} column"
    raise DataError(f"found {state} among: {', '.join(features)}; name it with {what}_column=")


def _pairs(source: Any) -> Split:
    """A list of (image, label), or a torch data set that gives such pairs."""
    try:
        n = len(source)
        labels = [source[i][1] for i in range(n)] if not isinstance(source, (list, tuple)) else [p[1] for p in source]
    except (TypeError, IndexError, KeyError) as error:
        kind = type(source).__name__
        raise DataError(f"cannot read a {kind} as (image, label) pairs: {_first_line(error)}") from error
    if not n:
        raise DataError("the data set has no image")
    classes = getattr(source, "classes", None)
    values = [value.item() if hasattr(value, "item") else value for value in labels]
    if classes is not None and all(isinstance(v, int) for v in values):
        return Split(lambda i: source[i][0], [str(classes[v]) for v in values], [str(c) for c in classes], _row)
    names = sorted(set(values), key=lambda v: (str(type(v)), v))
    return Split(lambda i: source[i][0], [str(v) for v in values], [str(v) for v in names], _row)


def _row(i: int) -> str:
    return f"item {i}"

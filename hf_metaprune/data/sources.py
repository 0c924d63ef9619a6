"""Where images come from: a folder, parquet, a datasets or torch data set, a list of pairs; undecoded, with labels."""

from __future__ import annotations

import glob
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, OptionError, reason
from ..files.names import is_repo_id
from ..hub.client import hub_answers
from .limits import MAX_CORRUPT_SHARE

log = logging.getLogger(__name__)

IMAGE_NAMES = ("image", "img", "pixel_values", "picture", "photo", "jpg", "png")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "category", "cls")
TRAIN_NAMES = ("train", "training")
NUMBERS = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"}
)
EVALUATION_NAMES = ("test", "validation", "valid", "val", "dev", "eval")


class UnlabeledError(DataError):
    """A split has images without a label."""


@dataclass
class Split:
    """Undecoded images of one split: how to fetch the i-th, and every label as a name."""

    fetch: Callable[[int], Any]
    labels: list[str]
    names: list[str]
    describe: Callable[[int], str] = str
    unreadable: Sequence[str] = ()
    """Items that are not even counted in `labels`, since nothing tells their label."""

    def __len__(self) -> int:
        return len(self.labels)


def splits_of(source: Any, image_column: str | None, label_column: str | None) -> tuple[dict[str, Split], str]:
    """The split to learn from, and one to measure on if there is one, by name; and what the source is called.

    Raises:
        DataError: nothing there, not understood, unknown columns, or labels are missing.
    """
    import datasets

    if isinstance(source, (str, Path)):
        source, name = _load(source)
    elif _are_paths(source):
        source, name = _load_parquet([Path(p).expanduser() for p in source]), Path(source[0]).stem
    elif isinstance(source, datasets.DatasetDict):
        name = _own_name(next(iter(source.values()), None))
    elif isinstance(source, datasets.Dataset):
        name = _own_name(source)
    else:
        if image_column or label_column:
            raise OptionError(f"column {(image_column or label_column)!r}: (image, label) pairs have no columns")
        return {"train": _pairs(source)}, "unnamed"
    if isinstance(source, datasets.Dataset):
        source = {"train": source}
    if not isinstance(source, dict) or not any(len(d) for d in source.values()):
        raise DataError(f"data set {name} has no image")
    columns = [c for c in (image_column, label_column) if c is not None]
    if columns and all(isinstance(d, Split) for d in source.values()):
        raise OptionError(f"column {columns[0]!r}: a folder of class folders has no columns")
    empty = next((n for n in TRAIN_NAMES if n in source and not len(source[n])), None)
    if empty is not None:
        raise DataError(f"data set {name}: split {empty!r} has no image")
    found = {}
    for split in _chosen([n for n, d in source.items() if len(d)]):
        try:
            held = source[split]
            found[split] = held if isinstance(held, Split) else _columns(held, image_column, label_column)
        except UnlabeledError:
            if split in TRAIN_NAMES or len(source) == 1:
                raise
            log.warning("split %r has no labels and is left out", split)
        if len(found) == 2:
            break
    return found, name


def _chosen(names: Sequence[str]) -> list[str]:
    """The split to learn from, then those to measure on, the best first."""
    train = next((n for n in TRAIN_NAMES if n in names), names[0])
    return [train, *(n for n in EVALUATION_NAMES if n in names and n != train)]


def _is_cached(repo_id: str) -> bool:
    """Whether the cache of `datasets` has a data set of the Hub."""
    from datasets import config

    return (Path(config.HF_DATASETS_CACHE) / repo_id.replace("/", "___")).exists()


def _are_paths(source: Any) -> bool:
    return isinstance(source, (list, tuple)) and bool(source) and all(isinstance(p, (str, Path)) for p in source)


def _own_name(dataset: Any) -> str:
    """What a data set calls itself; the packaged loaders' names say nothing about it."""
    name = dataset.info.dataset_name if dataset is not None else None
    return name if name and name not in ("parquet", "imagefolder", "arrow", "generator", "json", "csv") else "unnamed"


def _load(source: str | Path) -> tuple[Any, str]:
    """Splits (of a DatasetDict, or ours) from a path or a Hub id, and their name."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    path = Path(source).expanduser()
    try:
        if path.is_dir():
            folder = path.resolve()
            return _load_folder(path), "images" if folder == Path.home().resolve() else folder.name  # no user's name
        if path.is_file():
            return _load_parquet([path]), path.stem
        if isinstance(source, str) and glob.has_magic(source):
            return _load_parquet([Path(p) for p in sorted(glob.glob(str(path)))]), path.stem  # noqa: PTH207
        if isinstance(source, Path) or not is_repo_id(source):
            raise DataError(f"there is no file or folder {source}, and that is no id of the Hub, which is owner/name")
        if not hub_answers() and not _is_cached(source):
            raise DataError(f"there is no file or folder {source}, and the Hub cannot be reached: check the name")
        return datasets.load_dataset(source), source
    except DataError:
        raise
    except (DatasetNotFoundError, FileNotFoundError, ConnectionError, ValueError, OSError) as error:
        raise DataError(f"{source} cannot be read as a data set: {reason(error)}") from error
    except datasets.exceptions.DatasetGenerationError as error:
        raise DataError(f"{source} is damaged: {reason(error.__cause__ or error)}") from error


def _load_parquet(paths: Sequence[Path]) -> Any:
    """One split of the rows of all files."""
    import datasets

    others = [path for path in paths if path.suffix != ".parquet"]
    if others or not paths:
        what = f"{others[0]} is a file of unknown kind" if others else "no file has such a name"
        raise DataError(f"{what}: give a folder of class folders, or .parquet files")
    return datasets.DatasetDict(train=datasets.Dataset.from_parquet([str(path) for path in paths]))


def _load_folder(path: Path) -> Any:
    """A data set that `datasets` wrote or describes, else class folders."""
    import datasets

    if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
        return datasets.load_from_disk(str(path))
    if any(path.rglob("*.parquet")):
        return datasets.load_dataset("parquet", data_dir=str(path))
    if any((path / f"metadata.{kind}").exists() for kind in ("csv", "jsonl")) and not _subfolders(path):
        return datasets.load_dataset("imagefolder", data_dir=str(path))
    return class_folders(path)


def _subfolders(path: Path) -> list[Path]:
    """Folders in a folder by name, but for hidden ones and those that archives leave."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def class_folders(path: Path) -> dict[str, Split]:
    """A folder with a folder of images a class, or with ``train``, ``test`` or the like that hold such folders.

    Everything below a class's folder belongs to it. A class named ``train`` is a class, unless all its siblings are
    named like splits and hold folders, too. Other files are left out, with a warning.

    Raises:
        DataError: there are no class folders.
    """
    folders = _subfolders(path)
    if not folders:
        raise DataError(f"{path} holds no folders: put the images of each class into a folder with the class's name")
    splits = {folder.name.lower(): folder for folder in folders}
    if set(splits) <= {*TRAIN_NAMES, *EVALUATION_NAMES} and all(_subfolders(folder) for folder in folders):
        return {name: _class_folders(folder) for name, folder in splits.items()}
    return {"train": _class_folders(path)}


def image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The image files anywhere below a folder, told by their names, and the other files; hidden ones are neither."""
    from PIL import Image

    Image.init()
    known = {suffix for suffix, kind in Image.EXTENSION.items() if kind in Image.OPEN}  # PDF can only be written
    images: list[Path] = []
    others: list[Path] = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file() or not p.exists()):  # broken links, too
        if any(part.startswith(".") for part in file.relative_to(folder).parts[:-1]) or file.name.startswith("."):
            continue
        (images if file.suffix.lower() in known else others).append(file)
    return images, others


def _class_folders(path: Path) -> Split:
    files, labels = [], []
    left_out = [p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")]
    folders = _subfolders(path)
    for folder in folders:
        images, others = image_files(folder)
        files += images
        labels += [folder.name] * len(images)
        left_out += others
    if left_out:
        log.warning("left out what is no image of a class in %s: %d, such as %s", path, len(left_out), left_out[0].name)
    if not files:
        names = ", ".join(folder.name for folder in folders[:5])
        raise DataError(f"{path}: no image, such as .jpg or .png, in its folders ({names})")
    describe = [str(file.relative_to(path)) for file in files]
    return Split(files.__getitem__, labels, [folder.name for folder in folders], describe.__getitem__)


def _columns(dataset: Any, image_column: str | None, label_column: str | None) -> Split:
    """One split of a ``datasets.Dataset``, with its image and label columns found."""
    import datasets

    features = dataset.features
    is_image = {n for n, f in features.items() if isinstance(f, datasets.Image)}
    is_label = {n for n, f in features.items() if isinstance(f, datasets.ClassLabel)}
    image = pick_column("image", image_column, features, is_image, IMAGE_NAMES)
    label = pick_column("label", label_column, features, is_label, LABEL_NAMES)
    if isinstance(features[image], datasets.ClassLabel) or getattr(features[image], "dtype", "") in NUMBERS:
        raise DataError(f"column {image!r} holds numbers, not images; columns: {', '.join(features)}")
    if image in is_image:
        dataset = dataset.cast_column(image, datasets.Image(decode=False))
    dataset = dataset.with_format(None)
    raw = list(dataset.select_columns([label])[label])
    missing = [i for i, value in enumerate(raw) if _is_missing(value) or (label in is_label and value == -1)]
    if missing:
        raise UnlabeledError(f"{len(missing)} rows have no label (the first is row {missing[0]})")
    if label in is_label:
        names = list(features[label].names)
        labels = [names[i] for i in raw]
        held = set(labels)
        names = [n for n in names if n in held]
    else:
        labels, names = _as_text(raw)

    def describe(i: int) -> str:
        value = dataset[i][image]
        path = value.get("path") if isinstance(value, dict) else None
        return path or f"row {i}"

    return Split(lambda i: dataset[i][image], labels, names, describe)


def pick_column(what: str, asked: str | None, features: Any, by_type: set[str], by_name: Sequence[str]) -> str:
    """The column asked for, the only one of its type, or the first of the usual names.

    Raises:
        DataError: there is none, or several that are called otherwise.
    """
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


def _python_value(value: Any) -> Any:
    """A tensor or array of one number as that number."""
    return value.item() if hasattr(value, "item") and math.prod(value.shape) == 1 else value


def _as_text(values: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Labels as text, and the classes: numbers in their order, text in alphabetical order.

    Raises:
        DataError: a label is neither text nor a number (a list, one-hot, a box).
    """
    plain = [_python_value(value) for value in values]
    missing = sum(_is_missing(value) for value in plain)
    if missing:
        raise UnlabeledError(f"{missing} images have no label")
    wrong = next((v for v in plain if not isinstance(v, (str, int, float))), None)
    if wrong is not None:
        raise DataError(f"label {str(wrong)[:60]!r} is neither text nor a number: give one class for each image")
    numbers = {str(v): v for v in plain if not isinstance(v, str)}
    names = sorted(numbers, key=numbers.__getitem__)
    return [str(v) for v in plain], names + sorted({v for v in plain if isinstance(v, str)} - set(names))


def _is_missing(label: Any) -> bool:
    """None, or the NaN that pandas writes in a column of numbers."""
    return label is None or (isinstance(label, float) and math.isnan(label))


def _pairs(source: Any) -> Split:
    """A list of (image, label), or a torch data set that gives such pairs."""
    kind = type(source).__name__
    try:
        n = len(source)
        labels = _known_labels(source, n)
    except (TypeError, IndexError, KeyError, ValueError, OSError) as error:
        raise DataError(f"cannot read a {kind} as (image, label) pairs: {reason(error)}") from error
    if not n:
        raise DataError("the data set has no image")
    unreadable: dict[int, str] = {}
    if labels is None:
        labels, unreadable = _read_labels(source, n, kind)
    rows = [i for i in range(n) if i not in unreadable]
    classes, whole = None, source
    while classes is None and whole is not None:  # torch's Subset hides the names
        classes, whole = getattr(whole, "classes", None), getattr(whole, "dataset", None)
    values = [_python_value(labels[i]) for i in rows]
    if classes is not None and all(isinstance(v, int) and 0 <= v < len(classes) for v in values):
        held = set(values)
        texts, names = [str(classes[v]) for v in values], [str(c) for i, c in enumerate(classes) if i in held]
    else:
        texts, names = _as_text(values)
    told = [f"{_row(i)}: {why}" for i, why in unreadable.items()]
    return Split(lambda i: source[rows[i]][0], texts, names, lambda i: _row(rows[i]), told)


def _known_labels(source: Any, n: int) -> list[Any] | None:
    """The labels, where the source knows them without decoding an image."""
    if isinstance(source, (list, tuple)):
        return [pair[1] for pair in source]
    targets = getattr(source, "targets", None)
    if targets is None and hasattr(source, "dataset") and hasattr(source, "indices"):
        inner = getattr(source.dataset, "targets", None)
        targets = None if inner is None else np.asarray(inner)[list(source.indices)]
    if targets is None or len(targets) != n:
        return None
    labels = list(np.asarray(targets).tolist())
    return labels if _are_those_of_items(source, labels) else None


def _are_those_of_items(source: Any, labels: list[Any]) -> bool:
    """Whether the first item of each label has it: a `target_transform` makes others of what a source keeps."""
    firsts = {label: i for i, label in reversed([*enumerate(labels)])}
    for label, i in firsts.items():
        try:
            if _python_value(source[i][1]) != label:
                return False
        except MemoryError:
            raise
        except Exception:  # an item that cannot be read is told of later
            continue
    return True


def _read_labels(source: Any, n: int, kind: str) -> tuple[list[Any], dict[int, str]]:
    """The labels of items that are read for them, None for those that cannot be, and why.

    Raises:
        DataError: so many cannot be read that the images would be refused, too.
    """
    labels: list[Any] = []
    unreadable: dict[int, str] = {}
    for i in range(n):
        try:
            labels.append(source[i][1])
        except MemoryError:
            raise
        except Exception as error:  # data sets of others raise anything
            labels.append(None)
            unreadable[i] = reason(error)
            if len(unreadable) > MAX_CORRUPT_SHARE * n:
                why = "; ".join(f"{_row(k)}: {text}" for k, text in list(unreadable.items())[:3])
                raise DataError(
                    f"cannot read a {kind} as (image, label) pairs: {why}; up to 1% of items are skipped"
                ) from error
    return labels, unreadable


def _row(i: int) -> str:
    return f"item {i}"

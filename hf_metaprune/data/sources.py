"""Sources of images (a folder, parquet, a datasets or torch data set, a list of pairs), read as one or two splits."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import DataError, FormatError, MetaPruneError, OptionError, reason
from ..files.names import user_path
from ..files.reading import cached_content, check_regular, walk
from .file_checks import check_regular_files, check_saved
from .folders import EVALUATION_NAMES, LABEL_NAMES, TRAIN_NAMES, load_photos
from .pairs import read_pairs
from .source_names import check_source
from .split import Split, UnlabeledError, convert_labels, is_missing
from .tables import load_parquet, load_parquet_folder

log = logging.getLogger(__name__)

IMAGE_NAMES = ("image", "img", "pixel_values", "picture", "photo", "jpg", "png")
FOREIGN_ERRORS = (
    *(ValueError, OSError, LookupError, TypeError, AttributeError, RecursionError),
    *(OverflowError, NotImplementedError),
)
"""What `datasets` and pyarrow raise of files that are damaged."""
NUMBER_DTYPES = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"}
)
MAX_PATH, MAX_PARTS = 4096, 100
"""Most characters, and parts, in the path of an image."""


def read_splits(source: Any, image_column: str | None, label_column: str | None) -> tuple[dict[str, Split], str]:
    """Read the split to learn from, and a split to measure on if there is one.

    Args:
        source: as for `read_task_data`.
        image_column: the column of images, if it cannot be found by type or name.
        label_column: the column of labels, if it cannot be found by type or name.

    Returns:
        The splits by name, in that order, and the name of the data set.

    Raises:
        DataError: there is no image, the source is not understood, a column is unknown, or labels are missing.
        OptionError: a column is given for a source without columns.
    """
    import datasets

    folders: list[Path] | None = None  # what somebody has loaded is not looked at twice
    if isinstance(source, (str, Path)):
        folders = image_folders(source)
        source, name = load_source(source, label_column)
    elif _are_paths(source):
        folders = [user_path(p).parent for p in source]
        source, name = load_parquet([user_path(p) for p in source]), Path(source[0]).stem
    elif isinstance(source, datasets.DatasetDict):
        name = _own_name(next(iter(source.values()), None))
    elif isinstance(source, datasets.Dataset):
        name = _own_name(source)
    else:
        if image_column or label_column:
            raise OptionError(f"column {(image_column or label_column)!r}: (image, label) pairs have no columns")
        return {"train": read_pairs(source)}, "unnamed"
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
    splits = {}
    for split_name in _order_splits([n for n, d in source.items() if len(d)]):
        try:
            rows = source[split_name]
            splits[split_name] = (
                rows if isinstance(rows, Split) else _read_columns(rows, image_column, label_column, folders)
            )
        except UnlabeledError:
            if split_name in TRAIN_NAMES or len(source) == 1:
                raise
            log.warning("split %r has no labels and is left out", split_name)
        except MetaPruneError:
            raise
        except FOREIGN_ERRORS as error:  # of values that are no labels
            raise DataError(f"data set {name} cannot be read: {reason(error)}") from error
        if len(splits) == 2:
            break
    return splits, name


def _order_splits(names: Sequence[str]) -> list[str]:
    """Return the names of the split to learn from, then of those to measure on, the best first."""
    train = next((n for n in TRAIN_NAMES if n in names), names[0])
    return [train, *(n for n in EVALUATION_NAMES if n in names and n != train)]


def _are_paths(source: Any) -> bool:
    return isinstance(source, (list, tuple)) and bool(source) and all(isinstance(p, (str, Path)) for p in source)


def _own_name(dataset: Any) -> str:
    """Return the name in a data set's info, or "unnamed" if that is only the name of a loader."""
    name = dataset.info.dataset_name if dataset is not None else None
    return name if name and name not in ("parquet", "imagefolder", "arrow", "generator", "json", "csv") else "unnamed"


def image_folders(source: str | Path) -> list[Path]:
    """Return the folders that may hold images which the rows of a data set name by their paths."""
    from datasets.config import HF_DATASETS_CACHE
    from huggingface_hub.constants import HF_HUB_CACHE

    path = user_path(source)
    if path.is_dir():
        return [path]
    if path.is_file() or glob.has_magic(str(source)):
        return [Path(p).parent for p in glob.glob(str(path))]  # noqa: PTH207
    return [Path(HF_DATASETS_CACHE), Path(HF_HUB_CACHE)]


def check_place(image: Any, folders: Sequence[Path]) -> Any:
    """Check that an image which is given by its path is in one of the folders, and return the image.

    Strangers may have written the path.

    Raises:
        DataError: the path leads to another place, be it by a link.
    """
    is_decoded = not isinstance(image, (str, dict)) or (isinstance(image, dict) and image.get("bytes") is not None)
    path = None if is_decoded else (image.get("path") if isinstance(image, dict) else image)
    text = str(path)
    if path is not None and (len(text) > MAX_PATH or len(Path(text).parts) > MAX_PARTS):  # each part costs a question
        raise DataError(f"{text[:60]}... is too long for a path")
    places = [Path(os.path.realpath(folder)) for folder in folders]
    if path is not None and not any(_true_place(Path(path)).is_relative_to(place) for place in places):
        raise DataError(f"{path} is not in the folder of the data set, and is not read")
    return image


def _true_place(path: Path) -> Path:
    """Return a path without the links in it, but the one that huggingface_hub's cache has made for a file."""
    place = Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent)) / path.name if cached_content(path) == place else place


def load_source(source: str | Path, label_column: str | None = None) -> tuple[Any, str]:
    """Load the splits at a path or of a Hub id, as a DatasetDict or our own, and return them with their name.

    Args:
        source: the path or id.
        label_column: the column of labels in a table of photos, if it has no usual name.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    check_source(source)
    path = user_path(source)
    try:
        if path.is_dir():
            folder = path.resolve()
            # the name of the home folder is the user's, which must not be published
            return _load_folder(path, label_column), "images" if folder == Path.home().resolve() else folder.name
        if path.is_file():
            return load_parquet([path]), path.stem
        if isinstance(source, str) and glob.has_magic(source):
            paths = [Path(p) for p in sorted(glob.glob(str(path)))]  # noqa: PTH207
            for file in paths:  # names of somebody's folder, while a user may name a link
                check_regular(file)
            return load_parquet(paths), path.stem
        if path.exists():
            raise DataError(f"{source} is neither a file nor a folder")
        return datasets.load_dataset(str(source)), str(source)
    except DataError:
        raise
    except FormatError as error:
        raise DataError(str(error)) from error
    except (DatasetNotFoundError, ConnectionError, *FOREIGN_ERRORS) as error:
        raise DataError(f"{source} cannot be read as a data set: {reason(error)}") from error
    except datasets.exceptions.DatasetGenerationError as error:
        raise DataError(f"{source} is damaged: {reason(error.__cause__ or error)}") from error


def _load_folder(path: Path, label_column: str | None) -> Any:
    """Load a data set that `datasets` wrote or describes, or else class folders."""
    import datasets

    if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
        check_regular_files(path)
        check_saved(path)
        return datasets.load_from_disk(str(path))
    if parquet_files := [file for file in walk(path) if file.suffix == ".parquet"]:
        check_regular_files(path)
        return load_parquet_folder(path, parquet_files)
    return load_photos(path, label_column)


def _read_columns(
    dataset: Any, image_column: str | None, label_column: str | None, folders: Sequence[Path] | None
) -> Split:
    """Read one split of a ``datasets.Dataset``, after finding its image and label columns.

    Args:
        dataset: the rows.
        image_column: the column of images, if it cannot be found by type or name.
        label_column: the column of labels, if it cannot be found by type or name.
        folders: folders that may hold images which the rows name by their paths; None: any folder.
    """
    import datasets

    features = dataset.features
    is_image = {n for n, f in features.items() if isinstance(f, datasets.Image)}
    is_label = {n for n, f in features.items() if isinstance(f, datasets.ClassLabel)}
    image = pick_column("image", image_column, features, is_image, IMAGE_NAMES)
    label = pick_column("label", label_column, features, is_label, LABEL_NAMES)
    if isinstance(features[image], datasets.ClassLabel) or getattr(features[image], "dtype", "") in NUMBER_DTYPES:
        raise DataError(f"column {image!r} holds numbers, not images; columns: {', '.join(features)}")
    labels_only = dataset.select_columns([label]).with_format("arrow")
    dataset = image_column_only(dataset, image)
    # by row, as `datasets` reads a column, a million labels would take 12 seconds
    stored_labels = labels_only[:][label]
    if pa.types.is_nested(stored_labels.type):
        raise DataError(f"column {label!r} holds values of type {str(stored_labels.type)[:60]}, not labels")
    stored_labels.validate(full=True)
    raw = stored_labels.to_pylist()
    unlabeled_rows = [i for i, value in enumerate(raw) if is_missing(value) or (label in is_label and value == -1)]
    if unlabeled_rows:
        raise UnlabeledError(f"{len(unlabeled_rows)} rows have no label (the first is row {unlabeled_rows[0]})")
    if label in is_label:
        names = list(features[label].names)
        labels = [names[i] for i in raw]
        present = set(labels)
        names = [name for name in names if name in present]
    else:
        labels, names = convert_labels(raw)

    def describe(i: int) -> str:
        value = dataset[i][image]
        path = value.get("path") if isinstance(value, dict) else None
        return path or f"row {i}"

    def fetch(i: int) -> Any:
        value = dataset[i][image]
        return value if folders is None else check_place(value, folders)

    return Split(fetch, labels, names, describe)


def image_column_only(rows: Any, column: str) -> Any:
    """Return the rows of a ``datasets.Dataset`` with their encoded images alone.

    `datasets` decodes all columns of a row, by whatever its description calls for.

    Raises:
        DataError: the column is described as something else than images.
    """
    import datasets

    feature = rows.features[column]
    if not isinstance(feature, datasets.Image) and _is_decoded(feature):
        raise DataError(f"column {column!r} is described as {str(feature)[:60]}, which is no image")
    rows = rows.select_columns([column])
    if isinstance(feature, datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows.with_format(None)


def _is_decoded(feature: Any) -> bool:
    """Return whether `datasets` would decode the values of a column, which our checks must come before."""
    parts = list(feature.values()) if isinstance(feature, dict) else [getattr(feature, "feature", None)]
    return hasattr(feature, "decode_example") or any(_is_decoded(part) for part in parts if part is not None)


def pick_column(what: str, column: str | None, features: Any, by_type: set[str], by_name: Sequence[str]) -> str:
    """Return the requested column, the only one of its type, or the first with a usual name.

    Args:
        what: ``image`` or ``label``, for messages.
        column: the requested column, if any.
        features: all columns by name.
        by_type: the columns of the right type.
        by_name: usual names of such a column, the most usual first.

    Raises:
        DataError: there is no such column, or there are several without a usual name.
    """
    if column is not None:
        if column not in features:
            raise DataError(f"there is no column {column!r}; columns: {', '.join(features)}")
        return column
    if len(by_type) == 1:
        return next(iter(by_type))
    for name in by_name:
        if name in (by_type or features):
            return name
    state = f"several {what} columns: {', '.join(sorted(by_type))}" if by_type else f"no {what} column"
    raise DataError(f"found {state} among: {', '.join(features)}; name it with {what}_column=")

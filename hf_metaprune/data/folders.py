"""Folders of photos: a folder per class, splits of such folders, or photos beside a table of their labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files.reading import is_present, walk
from .split import Split
from .tables import METADATA, load_metadata

log = logging.getLogger(__name__)

LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "category", "cls")
"""Usual names of a column of labels, the most usual first."""
TRAIN_NAMES = ("train", "training")
EVALUATION_NAMES = ("test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation")
SPLIT_NAMES = frozenset({*TRAIN_NAMES, *EVALUATION_NAMES})


def load_photos(path: Path, label_column: str | None) -> Mapping[str, Any]:
    """Load the photos below a folder: splits or one of them, each with a folder per class or with a table of labels.

    As for the loader ``imagefolder`` of `datasets`, a table may lie in the folder of the photos, or in those of the
    splits ``train``, ``test`` or the like. One above the splits may describe the photos of all. Where there are folders
    of classes, these are the classes, and tables are left out.

    Args:
        path: the folder.
        label_column: the column of labels in a table, if it has no usual name.

    Returns:
        The splits by name, each a ``datasets.Dataset`` or our own.

    Raises:
        DataError: there are no classes, or a table is damaged where there are no folders.
    """
    folders = _subfolders(path)
    if not folders and (table := _table_in(path)):
        return {"train": load_metadata(table)}
    splits = _split_folders(path, folders)
    if not splits:
        rows = _labeled_rows(path, label_column) if len(folders) == 1 else None
        return {"train": rows if rows is not None else _read_class_folders(path)}
    n_folders = {name: len(_subfolders(folder)) for name, folder in splits.items()}
    rows_above: dict[str, Any] = {}
    if min(n_folders.values()) < 2 and (rows := _labeled_rows(path, label_column)) is not None:
        rows_above = _split_by_folders(rows, path)
    loaded: dict[str, Any] = {}
    for name, folder in splits.items():
        rows = None
        if n_folders[name] < 2:
            own_rows = _labeled_rows(folder, label_column)
            rows = own_rows if own_rows is not None else rows_above.get(name)
        if rows is not None or n_folders[name]:
            loaded[name] = rows if rows is not None else _read_class_folders(folder)
    missing = [name for name in splits if name not in loaded]
    if not loaded or {*missing} & {*TRAIN_NAMES}:
        raise DataError(
            f"{path}: {', '.join(missing)} has no folders of classes, and no metadata.csv with labels: put the images "
            "of each class into a folder with its name, or name the column of labels with label_column="
        )
    others = [*missing, *(folder.name for folder in folders if folder not in splits.values())]
    if others:
        log.warning("left out folders without classes in %s: %s", path, ", ".join(others))
    return loaded


def _split_folders(path: Path, folders: Sequence[Path]) -> dict[str, Path]:
    """Return the folders that are splits by their names in small letters; none if they are classes.

    They are splits if all are named like splits, or if one is named ``train`` and holds several folders, and another is
    named like one that is measured on.

    Raises:
        DataError: there are no folders, or two of one name in small letters.
    """
    if not folders:
        raise DataError(f"{path} holds no folders: put the images of each class into a folder with the class's name")
    named = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    splits = {folder.name.lower(): folder for folder in named}
    has_training = any(name in TRAIN_NAMES and len(_subfolders(folder)) > 1 for name, folder in splits.items())
    if len(named) < len(folders) and not (has_training and splits.keys() & {*EVALUATION_NAMES}):
        return {}
    if len(splits) < len(named):
        raise DataError(f"{path} has the same split twice: {', '.join(folder.name for folder in named)}")
    return splits


def _subfolders(path: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name, without hidden ones and those that archives leave."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _table_in(folder: Path) -> Path | None:
    """Return the table of photos in a folder, or None if there is none."""
    return next((folder / name for name in METADATA if is_present(folder / name)), None)


def _labeled_rows(folder: Path, label_column: str | None) -> Any:
    """Return the rows of a table in a folder if it has labels of photos that are there, else None, with a warning."""
    table = _table_in(folder)
    if table is None:
        return None
    try:
        rows = load_metadata(table)
    except DataError as error:
        log.warning("left out a table: %s", error)
        return None
    column = next((name for name in (label_column, *LABEL_NAMES) if name in rows.column_names), None)
    has_labels = column is not None and any(label is not None for label in rows[column][:])
    if not has_labels or all(image["bytes"] is not None for image in rows["image"][:]):
        log.warning("left out %s, which has no labels of photos that are there", table)
        return None
    return rows


def _split_by_folders(rows: Any, path: Path) -> dict[str, Any]:
    """Return the rows of a table as splits, by the folders of the photos that they name; ``train`` for all others."""
    rows_by_split: dict[str, list[int]] = {}
    for i, image in enumerate(rows["image"][:]):
        place = Path(image["path"])
        parts = place.relative_to(path).parts if place.is_relative_to(path) else place.parts
        name = parts[0].lower() if len(parts) > 1 else "train"
        rows_by_split.setdefault(name if name in SPLIT_NAMES else "train", []).append(i)
    return {name: rows.select(indices) for name, indices in rows_by_split.items()}


def image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the image files anywhere below a folder, and the other files; hidden files are neither.

    The suffix of its name decides whether a file is an image.
    """
    from PIL import Image

    Image.init()
    suffixes = {suffix for suffix, kind in Image.EXTENSION.items() if kind in Image.OPEN}  # PDF can only be written
    images: list[Path] = []
    others: list[Path] = []
    for file in sorted(p for p in walk(folder) if p.is_file() or not p.exists()):  # broken links, too
        if any(part.startswith(".") for part in file.relative_to(folder).parts[:-1]) or file.name.startswith("."):
            continue
        (images if file.suffix.lower() in suffixes else others).append(file)
    return images, others


def _read_class_folders(path: Path) -> Split:
    files, labels = [], []
    other_files = [p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")]
    folders = _subfolders(path)
    for folder in folders:
        images, no_images = image_files(folder)
        files += images
        labels += [folder.name] * len(images)
        other_files += no_images
    if other_files:
        message = "left out files that are no images of a class in %s: %d, such as %s"
        log.warning(message, path, len(other_files), other_files[0].name)
    if not files:
        names = ", ".join(folder.name for folder in folders[:5])
        raise DataError(f"{path}: no image, such as .jpg or .png, in its folders ({names})")
    describe = [str(file.relative_to(path)) for file in files]
    return Split(files.__getitem__, labels, [folder.name for folder in folders], describe.__getitem__)

"""Folders of photos: a folder per class, splits of such folders, or photos beside a table of their labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
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
EVALUATION_NAMES = ("test", "validation", "valid", "val", "dev", "eval")
SPLIT_NAMES = frozenset({*TRAIN_NAMES, *EVALUATION_NAMES})


def load_photos(path: Path, label_column: str | None) -> Mapping[str, Any]:
    """Load the photos below a folder, with labels from a table or from the names of folders.

    As for the loader ``imagefolder`` of `datasets`, there may be a table in each of the folders ``train``, ``test`` or
    the like. One above them may describe the photos of all. A table without labels is left out where there are folders
    that may be classes.

    Args:
        path: the folder.
        label_column: the column of labels in a table, if it has no usual name.

    Returns:
        The splits by name: of a ``datasets.DatasetDict``, or of our own.

    Raises:
        DataError: there are no classes, or a table is damaged.
    """
    import datasets

    folders = _subfolders(path)
    splits = {folder.name.lower(): folder for folder in folders if folder.name.lower() in SPLIT_NAMES}
    are_splits = bool(folders) and len(splits) == len(folders)
    if table := _table_in(path):
        rows = load_metadata(table)
        if not folders or {*rows.column_names} & {label_column, *LABEL_NAMES}:
            return _split_by_folders(rows, path) if are_splits else datasets.DatasetDict(train=rows)
    tables = {name: table for name, folder in splits.items() if (table := _table_in(folder))}
    if are_splits and tables:
        _leave_out(path, splits.keys() - tables.keys(), "no table of labels")
        return datasets.DatasetDict({name: load_metadata(table) for name, table in tables.items()})
    return class_folders(path)


def _table_in(folder: Path) -> Path | None:
    """Return the table of photos in a folder, or None if there is none."""
    return next((folder / name for name in METADATA if is_present(folder / name)), None)


def _split_by_folders(rows: Any, path: Path) -> Any:
    """Return the rows of a table as splits, by the folders of the photos that they name; ``train`` for all others."""
    import datasets

    rows_by_split: dict[str, list[int]] = {}
    for i, image in enumerate(rows["image"][:]):
        place = Path(image["path"])
        parts = place.relative_to(path).parts if place.is_relative_to(path) else place.parts
        name = parts[0].lower() if len(parts) > 1 else "train"
        rows_by_split.setdefault(name if name in SPLIT_NAMES else "train", []).append(i)
    return datasets.DatasetDict({name: rows.select(indices) for name, indices in rows_by_split.items()})


def _leave_out(path: Path, names: set[str], cause: str) -> None:
    """Warn of splits that are left out; one is not.

    Raises:
        DataError: the split to learn from is among them.
    """
    if missing := sorted(names & {*TRAIN_NAMES}):
        raise DataError(f"{path}: {missing[0]} has {cause}: put the images of each class into a folder of its own")
    if names:
        log.warning("left out %s, with %s", ", ".join(sorted(names)), cause)


def _subfolders(path: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name, without hidden ones and those that archives leave."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def class_folders(path: Path) -> dict[str, Split]:
    """Read a folder with one folder of images per class, or with ``train``, ``test`` or the like of such folders.

    All images below a class's folder belong to the class. A folder named ``train`` is a class, unless all its siblings
    are named like splits, too. Other files are left out, with a warning, and so are splits without class folders.

    Raises:
        DataError: there are no class folders.
    """
    folders = _subfolders(path)
    if not folders:
        raise DataError(f"{path} holds no folders: put the images of each class into a folder with the class's name")
    splits = {folder.name.lower(): folder for folder in folders}
    if splits.keys() <= SPLIT_NAMES:
        labeled = {name: folder for name, folder in splits.items() if _subfolders(folder)}
        if not labeled:
            raise DataError(f"{path}: {', '.join(splits)} have no folders of classes, and no metadata.csv with labels")
        _leave_out(path, splits.keys() - labeled.keys(), "no folders of classes")
        return {name: _read_class_folders(folder) for name, folder in labeled.items()}
    return {"train": _read_class_folders(path)}


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

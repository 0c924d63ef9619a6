"""Local tables of images: Parquet files, and ``metadata.csv`` or ``metadata.jsonl`` beside photos."""

from __future__ import annotations

import csv
import glob
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, FormatError, reason
from ..files.footer import MAX_COLUMNS
from ..files.reading import check_no_links, read_regular
from ..files.storage import parse_json
from ..text import quantity
from .file_checks import FREE_ROWS, check_parquet, photos_below

METADATA = ("metadata.csv", "metadata.jsonl")
"""Names of the file that describes the photos beside it, as for the loader ``imagefolder`` of `datasets`."""
FILE_COLUMN = "file_name"
MAX_METADATA_BYTES, MAX_PHOTO_NAME = 256 << 20, 1000
"""Most bytes of such a file, and most characters in the name of a photo."""
MAX_CHECKED = 100
"""Most photos that are not there of which it is looked up whether they are links."""
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Words in the name of a file, or of its folder, that say which split it belongs to, as for `datasets`."""


def load_parquet(paths: Sequence[Path]) -> Any:
    """Load the rows of all files as one split.

    Raises:
        DataError: a file is of another kind, or holds too much.
    """
    import datasets

    unknown_files = [path for path in paths if path.suffix != ".parquet"]
    if unknown_files or not paths:
        what = f"{unknown_files[0]} is a file of unknown kind" if unknown_files else "no file has such a name"
        raise DataError(f"{what}: give a folder of class folders, or .parquet files")
    check_parquet(paths)
    return datasets.DatasetDict(train=datasets.Dataset.from_parquet([_pattern(path) for path in paths]))


def load_parquet_folder(folder: Path, paths: Sequence[Path]) -> Any:
    """Load Parquet files as the splits that their names say.

    Args:
        folder: the folder that they lie in.
        paths: the files.

    Raises:
        DataError: a file holds too much.
    """
    import datasets

    check_parquet(paths)
    files_by_split: dict[str, list[str]] = {}
    for path in sorted(paths):
        files_by_split.setdefault(_split_of(path.relative_to(folder)), []).append(_pattern(path))
    return datasets.DatasetDict({n: datasets.Dataset.from_parquet(files) for n, files in files_by_split.items()})


def _pattern(path: Path) -> str:
    """Return a pattern that only one path fits: `datasets` takes names with brackets or stars for patterns."""
    return glob.escape(str(path))


def _split_of(path: Path) -> str:
    """Return the split of a file by the words in its name, or else in those of its folders, the nearest first."""
    for part in (path.stem, *reversed(path.parts[:-1])):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return "train"


def load_metadata(path: Path) -> Any:
    """Load the photos that a ``metadata.csv`` or ``metadata.jsonl`` beside them describes.

    Args:
        path: the file. Its column ``file_name`` names photos in the same folder; its other columns of texts or numbers
            are kept.

    Returns:
        A ``datasets.Dataset`` with the column ``image``, not decoded, and the others.

    Raises:
        DataError: the file cannot be read, holds too much, or names a photo elsewhere or by a link.
    """
    import datasets

    try:
        content = read_regular(path, MAX_METADATA_BYTES)
        text = content.decode("utf-8-sig")
        photos = {photo.relative_to(path.parent).as_posix() for photo in photos_below(path.parent)}
        n_lines = max(text.count("\n"), text.count("\r"))
        if n_lines > 1 + FREE_ROWS + len(photos):  # the first has the names of columns
            raise DataError(f"{path} has {n_lines} lines for {quantity(len(photos), 'file')}, too many")
        columns = _csv_columns(text) if path.suffix == ".csv" else _json_columns(text)
    except (FormatError, OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from error
    if FILE_COLUMN not in columns:
        raise DataError(f"{path} has no column {FILE_COLUMN}, with the names of photos")
    try:
        images = _find_photos(path, columns.pop(FILE_COLUMN), photos)
    except FormatError as error:
        raise DataError(str(error)) from error
    try:
        rows = datasets.Dataset.from_dict({"image": images, **{n: v for n, v in columns.items() if n != "image"}})
    except (OverflowError, ValueError, TypeError) as error:  # of numbers that Arrow has not
        raise DataError(f"{path} cannot be read: {reason(error)}") from error
    return rows.cast_column("image", datasets.Image(decode=False))


def _find_photos(table: Path, names: Sequence[Any], photos: set[str]) -> list[dict[str, Any]]:
    """Return the photos that a table names, in the form of an image column; those that are not there are empty.

    Raises:
        DataError: a name leads elsewhere, be it by a link.
    """
    folder = table.parent
    images: list[dict[str, Any]] = []
    n_missing = 0
    for name in names:
        is_sound = isinstance(name, str) and 0 < len(name) <= MAX_PHOTO_NAME and "\0" not in name
        if not is_sound or Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"{table} names a photo elsewhere: {str(name)[:60]!r}")
        relative = Path(name).as_posix()
        if relative in photos:
            images.append({"bytes": None, "path": str(folder / relative)})
            continue
        n_missing += 1
        if n_missing <= MAX_CHECKED:  # to name a link; it is not followed in any case
            check_no_links(folder, relative)
        images.append({"bytes": b"", "path": name})
    return images


def _csv_columns(text: str) -> dict[str, list[Any]]:
    """Return the columns of a CSV file by name; those of whole numbers have numbers."""
    reader = csv.reader(io.StringIO(text, newline=""))
    names = next(reader, [])
    if len(names) > MAX_COLUMNS or len(set(names)) < len(names):
        raise ValueError(f"it has more than {MAX_COLUMNS} columns, or one twice")
    rows: list[list[str]] = []
    for row in reader:
        if not row:
            continue
        if len(row) != len(names):
            raise ValueError(f"row {len(rows) + 1} has {len(row)} values for {len(names)} columns")
        rows.append(row)
    columns: dict[str, list[Any]] = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    for name, values in columns.items():
        if name != FILE_COLUMN and values and all(re.fullmatch(r"-?\d{1,15}", value) for value in values):
            columns[name] = [int(value) for value in values]
        else:
            columns[name] = [value or None for value in values]
    return columns


def _json_columns(text: str) -> dict[str, list[Any]]:
    """Return the columns of texts and numbers in a file with a JSON object per line."""
    rows: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    for line in text.split("\n"):  # no other line ends, as JSON Lines says
        if not line.strip():
            continue
        row = parse_json(line)
        if not isinstance(row, dict):
            raise ValueError(f"line {len(rows) + 1} is no JSON object")
        rows.append(row)
        names |= dict.fromkeys(row)
        if len(names) > MAX_COLUMNS:
            raise ValueError(f"it has more than {MAX_COLUMNS} columns")
    columns = {name: [row.get(name) for row in rows] for name in names}
    kinds = {name: {type(value) for value in values} - {type(None)} for name, values in columns.items()}
    return {n: columns[n] for n in names if len(kinds[n]) == 1 and kinds[n] <= {str, int, float, bool}}

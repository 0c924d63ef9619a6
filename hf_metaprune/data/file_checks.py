"""Checks of a data set's files before `datasets` opens them: what they are, what they name, and how much they hold."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError, FormatError, reason
from ..files.counts import Counts
from ..files.footer import MAX_COLUMNS, FooterLimits, read_stated_size
from ..files.parquet import fixed_places, text_bytes, text_columns
from ..files.reading import check_no_links, check_regular, is_regular, walk
from ..files.storage import parse_json, read_json
from ..text import quantity
from .limits import MAX_ROWS

FREE_BYTES, MAX_RATIO = 40_000_000, 12
"""A Parquet file unpacks to at most so many times its size, and so many bytes more: photos are packed already."""
MAX_FILES = 10_000
"""Most files of a saved data set."""
FREE_ROWS, MIN_ROW_BYTES = 5000, 60
"""A row takes at least so many bytes of a file, for the smallest PNG has about as many, or a photo beside the file has
them; some rows are free."""
TABLES = (".parquet", ".csv", ".jsonl", ".arrow", ".json")
"""Suffixes of files that are no photos."""
ROW_BATCH = 1000
"""Rows whose sizes are counted at a time."""
INFO_COUNTS = Counts(items=50_000, values=50_000, text=1_000_000, characters=5_000_000)
"""The most that the description of a data set may hold, which `datasets` copies several times."""


def check_regular_files(path: Path) -> None:
    """Check that all files of a folder are regular ones, and no links, except those of huggingface_hub's cache.

    Raises:
        DataError: a file is not.
    """
    try:
        for file in walk(path):
            check_no_links(path, file.relative_to(path).as_posix())
            if not file.is_dir():
                check_regular(file)
    except (FormatError, OSError) as error:
        raise DataError(str(error)) from error


def check_parquet(paths: Sequence[Path]) -> None:
    """Check how many rows and bytes Parquet files unpack to, because many can be in a small file.

    Args:
        paths: the files of one data set.

    Raises:
        DataError: there are more than `MAX_ROWS` rows, a file unpacks to too much, or is damaged.
    """
    rows = 0
    allowance = _RowAllowance(paths)
    for path in paths:
        try:
            rows += _check_unpacked(path, allowance)
        except (OSError, ValueError, pa.ArrowException, OverflowError) as error:
            raise DataError(f"{path} cannot be read as a data set: {reason(error)}") from error
        _check_rows(path, rows)


class _RowAllowance:
    """How many rows the files of one data set may have, each of which costs the time of an image.

    A row that names a photo by its path packs to a few bytes, so all files together may have one more for each photo
    beside them.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        folders = {path.parent for path in paths}
        tops = [folder for folder in folders if folders.isdisjoint(folder.parents)]
        self._photos = (file for folder in tops for file in photos_below(folder))

    def check(self, path: Path, size: int, rows: int) -> None:
        """Refuse a file with many more rows than its bytes, and the photos that no other file has used up, suggest."""
        max_rows = FREE_ROWS + size // MIN_ROW_BYTES
        if rows <= max_rows:
            return
        try:
            n_photos = sum(1 for _ in islice(self._photos, rows - max_rows))
        except FormatError as error:
            raise DataError(str(error)) from error
        if rows > max_rows + n_photos:
            where = f"a file so small beside {quantity(n_photos, 'other')}" if n_photos else "a file so small"
            raise DataError(
                f"{path} has {size} bytes and {rows} rows; at most {max_rows + n_photos} are read of {where}"
            )


def photos_below(folder: Path) -> Iterator[Path]:
    """Yield the regular files below a folder that can be photos.

    Raises:
        FormatError: its folders nest too deep.
    """
    return (path for path in walk(folder) if path.suffix not in TABLES and is_regular(path))


def _check_unpacked(path: Path, allowance: _RowAllowance) -> int:
    """Check how much a Parquet file unpacks to, and return its rows.

    Raises:
        DataError: it is too much.
        ValueError: the file is damaged.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        max_bytes = FREE_BYTES + MAX_RATIO * size
        limits = FooterLimits(
            footer_bytes=(4 << 20) + size // 20, footer_values=200_000 + size // 100, pages=20_000 + size // 1000
        )
        rows, stated_bytes = read_stated_size(file, limits)
        allowance.check(path, size, rows)
        _check_bytes(path, size, stated_bytes, max_bytes)
        file.seek(0)
        schema = pq.read_schema(file)
        _check_metadata(schema)
        stated_bytes += rows * 8 * sum(fixed_places(field.type) for field in schema)
        _check_bytes(path, size, stated_bytes, max_bytes)
        file.seek(0)
        schema = pq.read_metadata(file).schema
        leaves = [schema.column(number) for number in range(len(schema))]
        text_paths = text_columns(schema)
        file.seek(0)
        with pq.ParquetFile(file, read_dictionary=text_paths) as parquet:
            fixed_bytes = sum(
                leaf.length * parquet.metadata.row_group(group).column(number).num_values
                for number, leaf in enumerate(leaves)
                if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY"
                for group in range(parquet.num_row_groups)
            )
            total = stated_bytes + fixed_bytes
            _check_bytes(path, size, total, max_bytes)
            if text_paths:
                columns = list(dict.fromkeys(text_path.partition(".")[0] for text_path in text_paths))
                for group in range(parquet.num_row_groups):  # pyarrow joins no dictionaries of several groups
                    for batch in parquet.iter_batches(ROW_BATCH, [group], columns):
                        total += sum(map(text_bytes, batch.columns))
                        _check_bytes(path, size, total, max_bytes)
    return rows


def _check_rows(path: Path, rows: int) -> None:
    if rows > MAX_ROWS:
        raise DataError(f"{path}: {rows} rows are too many; at most {MAX_ROWS} are read")


def _check_bytes(path: Path, size: int, total: int, max_bytes: int) -> None:
    if total > max_bytes:
        raise DataError(f"{path} has {size} bytes and unpacks to {total} or more; at most {max_bytes} are unpacked")


def check_saved(path: Path) -> None:
    """Check that a data set that `datasets` has saved names only files of its own folders, and holds what it seems to.

    Args:
        path: the folder of the data set, or of its splits.

    Raises:
        DataError: a file of it cannot be read, holds too much, or names a file elsewhere, or one twice.
    """
    splits = path / "dataset_dict.json"
    folders = [path / name for name in _listed_names(splits, "splits")] if splits.exists() else [path]
    rows = n_files = 0
    for folder in folders:
        names = _listed_names(folder / "state.json", "_data_files")
        n_files += len(names)
        if n_files > MAX_FILES:
            raise DataError(f"{path} names {n_files} files; at most {MAX_FILES} are read")
        file = folder / "dataset_info.json"
        try:
            if file.exists():
                INFO_COUNTS.check({file.name: read_json(file)})
            for file in (folder / name for name in names):
                rows += sum(_arrow_rows(file))
                _check_rows(file, rows)
        except FormatError as error:
            raise DataError(str(error)) from error
        except (OSError, ValueError, struct.error, pa.ArrowException) as error:
            raise DataError(f"{file} cannot be read: {reason(error)}") from error


def _listed_names(file: Path, key: str) -> list[str]:
    """Return the names of files or folders that a file of a saved data set lists.

    Raises:
        DataError: the file cannot be read, or a name is of another folder or there twice.
    """
    try:
        names = [item["filename"] if isinstance(item, dict) else item for item in read_json(file).get(key) or []]
    except FormatError as error:
        raise DataError(str(error)) from error
    except (TypeError, LookupError) as error:
        raise DataError(f"{file} cannot be read: {reason(error)}") from error
    for name in names:
        if not isinstance(name, str) or {"/", "\\", ":"} & set(name) or name in ("", ".", ".."):
            raise DataError(f"{file} names a file in another folder: {str(name)[:60]!r}")
    if len(set(names)) < len(names):
        raise DataError(f"{file} names a file twice")
    return names


def _arrow_rows(path: Path) -> Iterator[int]:
    """Yield the rows of each batch in an Arrow stream.

    Raises:
        ValueError: a batch is packed, or one value may stand for many; `datasets` writes no such files.
    """
    with pa.memory_map(str(path)) as file:
        for message in pa.ipc.MessageReader.open_stream(file):
            if message.type == "schema":
                schema = pa.ipc.read_schema(message)
                if len(schema) > MAX_COLUMNS:
                    raise ValueError(f"it has more than {MAX_COLUMNS} columns")
                _check_metadata(schema)
                shared = [str(kind) for field in schema for kind in _kinds(field.type) if _is_shared(kind)]
                if shared:
                    raise ValueError(f"it has a column of type {shared[0][:60]}, which is not read")
            elif message.type == "record batch":
                rows, is_packed = _read_batch_header(message.metadata.to_pybytes())
                if is_packed:
                    raise ValueError("its batches are compressed, which is not read")
                yield rows
            else:
                raise ValueError(f"it has a {message.type}, which is not read")


def _kinds(kind: pa.DataType) -> Iterator[pa.DataType]:
    """Yield a type, and those inside of it."""
    yield kind
    for number in range(kind.num_fields):
        yield from _kinds(kind.field(number).type)


def _is_shared(kind: pa.DataType) -> bool:
    """Return whether one value of a column may stand for many rows."""
    name = str(kind)
    return pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind) or "_view" in name.partition("<")[0]


def _read_batch_header(metadata: bytes) -> tuple[int, bool]:
    """Return the rows of a record batch, and whether its buffers are compressed.

    Args:
        metadata: a Message of Arrow's ``Message.fbs`` as a flatbuffer; pyarrow, which cannot tell, has verified it.
    """

    def field(table: int, number: int) -> int:
        """Return the place of a table's field, or 0 if the table has none."""
        vtable = table - struct.unpack_from("<i", metadata, table)[0]
        if 4 + 2 * number >= struct.unpack_from("<H", metadata, vtable)[0]:
            return 0
        offset = struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)[0]
        return table + offset if offset else 0

    message = struct.unpack_from("<I", metadata)[0]
    header_place = field(message, 2)  # Message.header
    batch = header_place + struct.unpack_from("<I", metadata, header_place)[0]
    rows_place = field(batch, 0)  # RecordBatch.length
    rows = struct.unpack_from("<q", metadata, rows_place)[0] if rows_place else 0
    return rows, field(batch, 3) != 0  # RecordBatch.compression


def _check_metadata(schema: pa.Schema) -> None:
    """Check what `datasets` parses of a schema's metadata.

    Raises:
        ValueError: it is not JSON, or holds too much.
    """
    for key in (b"huggingface", b"pandas"):
        if text := (schema.metadata or {}).get(key):
            INFO_COUNTS.check({f"metadata {key.decode()}": parse_json(text)})

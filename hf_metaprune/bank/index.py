"""``index.parquet``: one row per entry; it suffices to list a bank and to rank its entries by WordNet."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import FormatError, reason
from ..files.footer import read_stated_size
from ..files.parquet import fixed_places, text_bytes, text_columns
from ..files.reading import open_regular
from ..files.storage import parse_json

MAX_INDEX_BYTES = 512 << 20  # a row has about 1 kB
MAX_UNPACKED_BYTES = 1 << 30
MAX_ROWS = 1_000_000
MIN_ROW_BYTES, FREE_ROWS = 256, 1000
"""A row takes at least so many bytes in the file: those of the demo banks take 400 without their sketches. A small file
may have more rows."""
MAX_UNPACKED_RATIO, FREE_UNPACKED_BYTES = 10, 16 << 20
"""A table unpacks to at most so many times the size of its file; a small file may unpack to more."""
FREE_METRICS_BYTES, METRICS_ROW_BYTES = 4 << 20, 256
"""The metrics of all rows have at most so many bytes, and so many more per row: each becomes Python objects."""
FREE_CONTAINERS, ROW_CONTAINERS = 150_000, 4
"""The same for the lists and objects in them, which Python takes long to make."""
MAX_NULLS = 2_000_000
META_KEY = b"metaprune"
ROW_BATCH = 4096  # rows that become Python objects at a time

INDEX_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("synsets", pa.list_(pa.string()), nullable=False),
        pa.field("masks", pa.binary(), nullable=False),
        pa.field("method", pa.string()),
        pa.field("ratio", pa.float64()),
        pa.field("metrics", pa.string()),
        pa.field("path", pa.string()),
        pa.field("repo_id", pa.string()),
        pa.field("revision", pa.string()),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("sketch", pa.binary()),
        pa.field("scores_sha256", pa.string()),
        pa.field("class_means", pa.binary()),
    ]
)
OPTIONAL_COLUMNS = ("sketch", "scores_sha256", "class_means")
"""Columns that a file need not have."""


def read_table(path: Path) -> pa.Table:
    """Read an index as a table, and check its columns; columns that this version does not know are kept.

    The memory that a stranger's file can take is bounded before its rows are made: texts stay dictionaries of distinct
    values until their size is known.

    Raises:
        FormatError: the file is missing, damaged or too large, or has other columns.
    """
    try:
        with open_regular(path) as stream:  # opened once, because another process may replace the file
            if (size := os.fstat(stream.fileno()).st_size) > MAX_INDEX_BYTES:
                raise FormatError(f"{path} has {size} bytes, more than {MAX_INDEX_BYTES}")
            _check_size(stream, size, path)
            stream.seek(0)
            schema = pq.read_metadata(stream).schema
            stream.seek(0)
            _check_columns(schema, pq.read_schema(stream))
            stream.seek(0)
            with pq.ParquetFile(
                stream, read_dictionary=text_columns(schema), page_checksum_verification=True
            ) as parquet:
                table = parquet.read()
        return _decode_table(table, size, path)
    except (OSError, ValueError, pa.ArrowException, OverflowError) as error:
        raise FormatError(
            f"{path} cannot be read: {reason(error)}; `hf-metaprune bank validate --repair` rebuilds it"
        ) from error


def _check_size(file: BinaryIO, size: int, path: Path) -> None:
    """Check what a file states before it is unpacked; a small file of a huge table costs more than it is worth.

    Raises:
        FormatError: the table is too large, or too large for the size of its file.
    """
    rows, unpacked_bytes = read_stated_size(file)
    max_rows, max_unpacked = min(MAX_ROWS, FREE_ROWS + size // MIN_ROW_BYTES), _max_unpacked(size)
    if rows > max_rows or unpacked_bytes > max_unpacked:
        raise FormatError(
            f"{path} has {size} bytes and states {rows} rows and {unpacked_bytes} bytes, more than {max_rows} rows or "
            f"{max_unpacked} bytes"
        )


def _max_unpacked(size: int) -> int:
    """Return how many bytes a file of some bytes may unpack to."""
    return min(MAX_UNPACKED_BYTES, FREE_UNPACKED_BYTES + MAX_UNPACKED_RATIO * size)


def _check_columns(schema: pq.ParquetSchema, arrow_schema: pa.Schema) -> None:
    """Check the columns' kinds.

    Raises:
        ValueError: there is a column of bytes or lists of a fixed length: bytes may repeat without end, and each null
            takes the place of a whole list.
    """
    for leaf in (schema.column(number) for number in range(len(schema))):
        if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY":
            raise ValueError(f"column {leaf.path[:60]} has bytes of a fixed length, which no index has")
    for field in arrow_schema:
        if fixed_places(field.type):
            raise ValueError(f"column {field.name[:60]} has lists of a fixed length, which no index has")


def _decode_table(table: pa.Table, size: int, path: Path) -> pa.Table:
    """Return the table without dictionary columns, after a check of the memory that its texts will take."""
    missing_columns = sorted(set(INDEX_SCHEMA.names) - set(table.column_names) - set(OPTIONAL_COLUMNS))
    if missing_columns:
        raise FormatError(f"{path}: columns {missing_columns} are missing")
    if len(set(table.column_names)) < table.num_columns:
        raise FormatError(f"{path}: columns are repeated")
    total = sum(text_bytes(chunk) for column in table.columns for chunk in column.chunks)
    if total > (max_bytes := _max_unpacked(size)):
        raise FormatError(f"{path} has {size} bytes, and its texts unpack to {total}, more than {max_bytes}")
    metrics_bytes = sum(map(text_bytes, table["metrics"].chunks))
    if metrics_bytes > (max_bytes := FREE_METRICS_BYTES + METRICS_ROW_BYTES * len(table)):
        raise FormatError(f"{path}: the metrics of its rows have {metrics_bytes} bytes, more than {max_bytes}")
    for name in set(OPTIONAL_COLUMNS) - set(table.column_names):
        table = table.append_column(INDEX_SCHEMA.field(name), pa.nulls(len(table), INDEX_SCHEMA.field(name).type))
    for number, field in enumerate(table.schema):
        known_field = INDEX_SCHEMA.field(field.name) if field.name in INDEX_SCHEMA.names else None
        target_type = known_field.type if known_field is not None else _decoded_type(field.type)
        if known_field is not None and not _is_alike(field.type, target_type):
            raise FormatError(f"{path}: column {field.name} is of type {_decoded_type(field.type)}, not {target_type}")
        try:
            table = table.set_column(
                number, known_field or field.with_type(target_type), _cast_column(table[field.name], target_type)
            )
        except ValueError as error:
            raise FormatError(f"{path}: column {field.name}: {reason(error)}") from error
    n_containers = sum(pc.sum(pc.count_substring(table["metrics"], bracket)).as_py() or 0 for bracket in "[{")
    if n_containers > (most := FREE_CONTAINERS + ROW_CONTAINERS * len(table)):
        raise FormatError(f"{path}: the metrics of its rows have {n_containers} lists and objects, more than {most}")
    return table


def _is_alike(kind: pa.DataType, target: pa.DataType) -> bool:
    """Return whether a column can be cast to the target type: other programs write other widths, and guess types."""
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_list(target):
        lists = types.is_list(kind) or types.is_large_list(kind)
        return types.is_null(kind) or (lists and _is_alike(kind.value_type, target.value_type))
    accepted_rows = {
        pa.string(): (types.is_string, types.is_large_string, types.is_string_view),
        pa.binary(): (types.is_binary, types.is_large_binary, types.is_binary_view),
        pa.float64(): (types.is_floating, types.is_integer),
        pa.int64(): (types.is_integer,),
    }
    return types.is_null(kind) or any(is_type(kind) for is_type in accepted_rows[target])


def _cast_column(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    if column.type == target:
        return column
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    if is_list and pa.types.is_null(column.type.value_type):  # pyarrow cannot cast lists of nulls
        if (count := pc.sum(pc.list_value_length(column)).as_py() or 0) > MAX_NULLS:
            raise ValueError(f"{count} nulls are too many")
        return pa.chunked_array([pa.array(chunk.to_pylist(), target) for chunk in column.chunks], target)
    return column.cast(target)


def _decoded_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.list_(_decoded_type(kind.value_type)) if pa.types.is_list(kind) else kind


def read_stored_meta(path: Path) -> dict[str, Any] | None:
    """Read the copy of ``bank.json`` in an index.

    Returns:
        Its values, unchecked; None if the index has no copy, because another program wrote it.

    Raises:
        FormatError: the file is damaged.
    """
    try:
        with open_regular(path) as stream:
            _check_size(stream, os.fstat(stream.fileno()).st_size, path)
            stream.seek(0)
            content = (pq.read_schema(stream).metadata or {}).get(META_KEY)
        value = parse_json(content) if content else None
    except (OSError, pa.ArrowException, ValueError) as error:
        raise FormatError(f"{path} cannot be read: {reason(error)}") from error
    return value if isinstance(value, dict) else None


def check_complete(table: pa.Table, path: Path) -> pa.Table:
    """Check that no row lacks a required value, and return the table.

    Publishing writes all rows again, so it cannot skip bad ones as a reader does.

    Raises:
        FormatError: a required value is missing.
    """
    required_columns = [field.name for field in INDEX_SCHEMA if not field.nullable]
    incomplete = [name for name in required_columns if table[name].null_count] or ["labels"] * _has_nulls(
        table["labels"]
    )
    if incomplete:
        raise FormatError(f"{path}: a row has no {incomplete[0]}; `hf-metaprune bank validate --repair` rebuilds it")
    return table


def _has_nulls(lists: pa.ChunkedArray) -> bool:
    return any(chunk.flatten().null_count for chunk in lists.chunks)


def table_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows as dictionaries, with the columns that this version knows."""
    known_columns = table.select([name for name in table.column_names if name in INDEX_SCHEMA.names])
    for batch in known_columns.to_batches(max_chunksize=ROW_BATCH):
        yield from batch.to_pylist()


def make_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return a table of rows, sorted by id."""
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["id"]), schema=INDEX_SCHEMA)


def merge_tables(table: pa.Table, added: pa.Table, removed: Collection[str] = ()) -> pa.Table:
    """Add rows to a table and remove others; columns that this version does not know are kept.

    Args:
        table: the rows so far.
        added: rows to add; they replace rows of the same id.
        removed: ids of rows to remove.

    Returns:
        A new table, sorted by id.
    """
    replaced_ids = pa.array([*removed, *added["id"].to_pylist()], pa.string())
    kept_rows = table.filter(pc.invert(pc.is_in(table["id"].cast(pa.string()), replaced_ids)))
    return pa.concat_tables([kept_rows, added], promote_options="permissive").sort_by("id")


def index_bytes(table: pa.Table, meta: Mapping[str, Any]) -> bytes:
    """Return the content of ``index.parquet``.

    It has a copy of ``bank.json`` (`meta`), so that a reader of a bank on the Hub needs no other file.
    """
    table = table.replace_schema_metadata({META_KEY: json.dumps(meta)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()

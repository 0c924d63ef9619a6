"""``index.parquet``: one row an entry; enough to list a bank and to rank it by WordNet."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import FormatError, reason
from ..files.storage import parse_json
from .footer import stated_size

MAX_INDEX_BYTES = 512 << 20  # a row has about 1 kB
MAX_UNPACKED_BYTES = 1 << 30
MAX_ROWS = 1_000_000
MAX_NULLS = 10_000_000
META_KEY = b"metaprune"
BATCH = 4096  # rows made at a time

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
    ]
)
OPTIONAL = ("sketch", "scores_sha256")
"""Columns that a file need not have."""


def read_table(path: Path) -> pa.Table:
    """The index as a table, its columns checked, columns unknown here included.

    What a stranger's file unpacks to is bounded before its rows are made: texts stay dictionaries of distinct values
    until they are counted.

    Raises:
        FormatError: it is missing, damaged, too large, or has other columns.
    """
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise FormatError(f"{path} has {path.stat().st_size} bytes, more than {MAX_INDEX_BYTES}")
        with open(path, "rb") as handle:  # opened once: between two openings another process may replace it
            _check_size(handle, path)
            handle.seek(0)
            texts = _texts(pq.read_metadata(handle).schema)
            handle.seek(0)
            with pq.ParquetFile(handle, read_dictionary=texts, page_checksum_verification=True) as file:
                table = file.read()
        return _decoded(table, path)
    except (OSError, ValueError, pa.ArrowException, OverflowError) as error:
        raise FormatError(
            f"{path} cannot be read: {reason(error)}; `hf-metaprune bank validate --repair` rebuilds it"
        ) from error


def _check_size(file: BinaryIO, path: Path) -> None:
    rows, unpacked = stated_size(file)
    if rows > MAX_ROWS or unpacked > MAX_UNPACKED_BYTES:
        raise FormatError(f"{path} says that it unpacks to {rows} rows and {unpacked} bytes: too many")


def _texts(schema: pq.ParquetSchema) -> list[str]:
    """The paths of columns of text or bytes."""
    leaves = [schema.column(c) for c in range(len(schema))]
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]


def _decoded(table: pa.Table, path: Path) -> pa.Table:
    """The table with plain columns, after a count of what the texts take once each row has its own."""
    missing = sorted(set(INDEX_SCHEMA.names) - set(table.column_names) - set(OPTIONAL))
    if missing or len(set(table.column_names)) < table.num_columns:
        raise FormatError(f"{path}: columns {missing} are missing" if missing else f"{path}: columns are repeated")
    total = sum(_text_bytes(chunk) for column in table.columns for chunk in column.chunks)
    if total > MAX_UNPACKED_BYTES:
        raise FormatError(f"{path}: its texts unpack to {total} bytes, more than {MAX_UNPACKED_BYTES}")
    for name in set(OPTIONAL) - set(table.column_names):
        table = table.append_column(INDEX_SCHEMA.field(name), pa.nulls(len(table), INDEX_SCHEMA.field(name).type))
    for number, field in enumerate(table.schema):
        known = INDEX_SCHEMA.field(field.name) if field.name in INDEX_SCHEMA.names else None
        wanted = known.type if known is not None else _decoded_type(field.type)
        if known is not None and not _is_alike(field.type, wanted):
            raise FormatError(f"{path}: column {field.name} is of type {_decoded_type(field.type)}, not {wanted}")
        try:
            table = table.set_column(number, known or field.with_type(wanted), _as(table[field.name], wanted))
        except ValueError as error:
            raise FormatError(f"{path}: column {field.name}: {reason(error)}") from error
    return table


def _is_alike(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column can stand for one of another type: other programs write other widths, and guess types."""
    kinds = pa.types
    if kinds.is_dictionary(kind):
        kind = kind.value_type
    if kinds.is_list(wanted):
        lists = kinds.is_list(kind) or kinds.is_large_list(kind)
        return kinds.is_null(kind) or (lists and _is_alike(kind.value_type, wanted.value_type))
    same = {
        pa.string(): (kinds.is_string, kinds.is_large_string, kinds.is_string_view),
        pa.binary(): (kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view),
        pa.float64(): (kinds.is_floating, kinds.is_integer),
        pa.int64(): (kinds.is_integer,),
    }
    return kinds.is_null(kind) or any(test(kind) for test in same[wanted])


def _as(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if column.type == wanted:
        return column
    lists = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    if lists and pa.types.is_null(column.type.value_type):  # which pyarrow cannot cast
        if (count := pc.sum(pc.list_value_length(column)).as_py() or 0) > MAX_NULLS:
            raise ValueError(f"{count} nulls are too many")
        return pa.chunked_array([pa.array(chunk.to_pylist(), wanted) for chunk in column.chunks], wanted)
    return column.cast(wanted)


def _text_bytes(array: pa.Array) -> int:
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _text_bytes(array.flatten())
    if not pa.types.is_dictionary(array.type):
        return 0
    lengths = pc.binary_length(array.dictionary).cast(pa.int64())
    return pc.sum(lengths.take(array.indices)).as_py() or 0


def _decoded_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.list_(_decoded_type(kind.value_type)) if pa.types.is_list(kind) else kind


def stored_meta(path: Path) -> dict[str, Any] | None:
    """The copy of ``bank.json`` in an index, or None: it was written by another program.

    Raises:
        FormatError: the file is damaged.
    """
    try:
        found = (pq.read_schema(path).metadata or {}).get(META_KEY)
        value = parse_json(found) if found else None
    except (OSError, pa.ArrowException, ValueError) as error:
        raise FormatError(f"{path} cannot be read: {reason(error)}") from error
    return value if isinstance(value, dict) else None


def check_complete(table: pa.Table, path: Path) -> pa.Table:
    """The table itself, for those who go on with all of its rows, which a reader may leave out one by one.

    Raises:
        FormatError: a value that each row must have is missing.
    """
    needed = [field.name for field in INDEX_SCHEMA if not field.nullable]
    lacking = [name for name in needed if table[name].null_count] or ["labels"] * _has_nulls(table["labels"])
    if lacking:
        raise FormatError(f"{path}: a row has no {lacking[0]}; `hf-metaprune bank validate --repair` rebuilds it")
    return table


def _has_nulls(lists: pa.ChunkedArray) -> bool:
    return any(chunk.flatten().null_count for chunk in lists.chunks)


def table_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows, as dictionaries of the columns known here."""
    known = table.select([name for name in table.column_names if name in INDEX_SCHEMA.names])
    for batch in known.to_batches(max_chunksize=BATCH):
        yield from batch.to_pylist()


def make_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table of rows, ordered by id."""
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["id"]), schema=INDEX_SCHEMA)


def merged(table: pa.Table, added: pa.Table, removed: Collection[str] = ()) -> pa.Table:
    """`table` without `removed`, with `added` in the place of rows of the same id; columns unknown here are kept."""
    gone = pa.array([*removed, *added["id"].to_pylist()], pa.string())
    kept = table.filter(pc.invert(pc.is_in(table["id"].cast(pa.string()), gone)))
    return pa.concat_tables([kept, added], promote_options="permissive").sort_by("id")


def index_bytes(table: pa.Table, meta: Mapping[str, Any]) -> bytes:
    """The file's content; it carries a copy of ``bank.json``, so that a reader on the Hub needs no other file."""
    table = table.replace_schema_metadata({META_KEY: json.dumps(meta)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()

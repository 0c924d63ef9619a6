"""Mutations of ``index.parquet``: other values, other columns, other types, much in little, and other bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hf_metaprune.bank.index import INDEX_SCHEMA
from hf_metaprune.files.storage import parse_json
from tests.fuzz.mutators import NUMBERS, TEXTS, json_bytes, mutate_bytes, mutate_value, nasty

Table = pa.Table


def mutate_index(rng: Random, content: bytes) -> bytes:
    """An index with another table in it, another copy of ``bank.json``, or other bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, content)
    table = pq.read_table(io.BytesIO(content))
    try:
        for _ in range(rng.choice((1, 1, 2))):
            if table.num_rows and len(set(table.column_names)) == table.num_columns:
                table = rng.choice(TABLE_MUTATIONS)(rng, table)
        return _written(rng, table)
    except (NotImplementedError, MemoryError, pa.ArrowInvalid):  # not every table can be taken, cast and written
        return mutate_bytes(rng, content)


def _written(rng: Random, table: Table) -> bytes:
    options: list[dict[str, Any]] = [{}, {}, {"compression": "snappy"}, {"compression": "gzip"}, {"version": "1.0"}]
    if table.num_rows < 100:
        options.append({"row_group_size": 1})
    options += [{"use_dictionary": False}, {"store_schema": False}, {"data_page_version": "2.0"}]
    if any("dictionary" in str(kind) for kind in table.schema.types):  # little in the file, much in memory
        options = [{}]
    sink = io.BytesIO()
    pq.write_table(table, sink, **{"compression": "zstd"} | rng.choice(options))
    return sink.getvalue()


def _value(rng: Random, table: Table) -> Table:
    """Another value, of the right type, in one cell."""
    name = rng.choice(table.column_names)
    kind = table.schema.field(name).type
    if kind not in INDEX_SCHEMA.types:
        return table
    values = table[name].to_pylist()
    values[rng.randrange(len(values))] = _of_type(rng, kind)
    array = pa.array(values, kind)
    return table.set_column(table.column_names.index(name), pa.field(name, kind), array)


def _of_type(rng: Random, kind: pa.DataType) -> Any:
    if rng.random() < 0.15:
        return None
    if pa.types.is_list(kind):
        return [_of_type(rng, kind.value_type) for _ in range(rng.choice((0, 1, 2, 3, 3, 3, 50)))]
    if pa.types.is_floating(kind):
        return rng.choice([n for n in NUMBERS if isinstance(n, float)])
    if pa.types.is_integer(kind):
        return rng.choice([n for n in NUMBERS if isinstance(n, int) and abs(n) < 2**63])
    text = rng.choice(
        [json_bytes(rng, nasty(rng)), *(t.encode() for t in TEXTS), json_bytes(rng, {"accuracy": nasty(rng)})]
    )
    return text if pa.types.is_binary(kind) else text.decode("utf-8", "replace")


def _type(rng: Random, table: Table) -> Table:
    """One column of another type."""
    name = rng.choice(table.column_names)
    kind = table.schema.field(name).type
    texts = [pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view(), pa.binary_view(), pa.int64()]
    kinds = [
        pa.dictionary(pa.int32(), kind),
        pa.dictionary(pa.int8(), pa.string()),
        pa.list_(kind),
        pa.large_list(kind),
    ]
    kinds += [pa.null(), pa.bool_(), pa.date32(), pa.timestamp("ns"), pa.decimal128(38), pa.float16(), pa.float32()]
    kinds += [pa.struct([("x", kind)]), pa.map_(pa.string(), kind), pa.list_(pa.list_(pa.string())), pa.time64("us")]
    kinds += [pa.list_(pa.dictionary(pa.int32(), pa.string())), pa.list_(pa.binary()), pa.list_(pa.int64()), *texts]
    column_type = rng.choice(kinds)
    try:
        array = table[name].cast(column_type)
    except (pa.ArrowException, NotImplementedError):
        array = pa.nulls(table.num_rows, column_type)
    return _replaced(table, name, array)


def _replaced(table: Table, name: str, array: Any) -> Table:
    new_table = table.set_column(table.column_names.index(name), name, array)
    try:
        pq.write_table(new_table, io.BytesIO())
    except (pa.ArrowException, NotImplementedError):  # there is no such column in parquet
        return table
    return new_table


def mutate_places(rng: Random, content: bytes) -> bytes:
    """An index whose entries lie somewhere else."""
    table = pq.read_table(io.BytesIO(content))
    places = [rng.choice([*TEXTS, "base", "tasks", "tasks/.", path]) for path in table["path"].to_pylist()]
    texts = pa.array([place.encode("utf-8", "replace").decode() for place in places])
    return _written(rng, table.set_column(table.column_names.index("path"), "path", texts))


def _columns(rng: Random, table: Table) -> Table:
    """Columns gone, renamed, repeated, moved, added."""
    name, names = rng.choice(table.column_names), table.column_names
    kind = rng.choice(("gone", "renamed", "repeated", "moved", "added", "many", "one"))
    if kind == "gone":
        return table.drop_columns([name]) if len(names) > 1 else table
    if kind == "renamed":
        new = rng.choice(["", "ID", f"{name}.x", "x" * 5000, "a\0b", rng.choice(names)])
        return table.rename_columns([new if n == name else n for n in names])
    if kind == "repeated":
        return table.append_column(name, table[names.index(name)])
    if kind == "moved":
        return table.select(sorted(range(len(names)), key=lambda _: rng.random()))
    if kind == "one":
        return table.select([names.index(name)])
    for n in range(300 if kind == "many" else 1):
        table = table.append_column(f"{rng.choice(('x', 'note', 'masks'))}{n}", pa.array([f"{n}"] * table.num_rows))
    return table


def _rows(rng: Random, table: Table) -> Table:
    """Rows gone or repeated."""
    kind = rng.choice(("none", "some", "repeated", "many"))
    if kind == "none":
        return table.slice(0, 0)
    if kind == "some":
        return table.slice(rng.randrange(max(1, table.num_rows)), 2)
    return pa.concat_tables([table] * (2 if kind == "repeated" else rng.choice((20, 100))))


def _much(rng: Random, table: Table) -> Table:
    """A few kilobytes that unpack to much: the same long text in every row, or the same text in a long list."""
    name = rng.choice(table.column_names)
    kind = table.schema.field(name).type
    sizes = [(100, 50_000), (200, 50_000), (1_000, 10_000), (4, 2_500_000)]
    rows, size = rng.choice(sizes if pa.types.is_list(kind) else [*sizes, (20_000, 500_000)])
    table = table.take([0] * rows)
    if pa.types.is_list(kind):
        offsets = pa.array([n * (size // 100) for n in range(rows + 1)], pa.int32())
        index = pa.array([0] * offsets[-1].as_py(), pa.int8())
        words = pa.DictionaryArray.from_arrays(index, pa.array(["x" * 100]))
        return table.set_column(table.column_names.index(name), name, pa.ListArray.from_arrays(offsets, words))
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        value = pa.array([b"x" * size if pa.types.is_binary(kind) else "x" * size])
        texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int16()), value)
        return table.set_column(table.column_names.index(name), name, texts)
    return table


def _meta(rng: Random, table: Table) -> Table:
    """Another copy of ``bank.json``."""
    metadata = dict(table.schema.metadata or {})
    try:
        meta = parse_json(metadata.get(b"metaprune", b"{}"))
    except ValueError:  # altered before
        meta = {}
    new = rng.choice([json_bytes(rng, mutate_value(rng, meta)), json_bytes(rng, nasty(rng)), b"", b"\xff", b"{" * 9])
    return table.replace_schema_metadata(metadata | {b"metaprune": new, rng.choice((b"x", b"pandas")): b"{"})


TABLE_MUTATIONS: list[Callable[[Random, Table], Table]] = [_value, _value, _value, _type, _type, _columns, _rows]
TABLE_MUTATIONS += [_much, _meta, _meta]

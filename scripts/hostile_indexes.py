"""Indexes of banks that cost much to read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_metaprune.adapt.class_votes import vote_on_classes
from hf_metaprune.bank.bank import Bank
from hf_metaprune.data.task import Task
from hf_metaprune.training.record import RunRecord
from scripts.hostile_files import CASES, case, copy_bank, read_bank

RANDOM = np.random.default_rng(0)


def index_case(
    name: str, change: Callable[[pa.Table], pa.Table], read: Callable[[Path], object] = read_bank, **options: Any
) -> None:
    def make(folder: Path) -> tuple[Path, Callable[[], object]]:
        root = copy_bank(folder)
        table = change(pq.read_table(root / "index.parquet"))
        pq.write_table(table, root / "index.parquet", compression="zstd", **options)
        return root / "index.parquet", lambda: read(root)

    CASES[f"index: {name}"] = make


def vote(root: Path) -> None:
    """Ask the entries about the classes of a task."""
    task = Task(tuple(f"class {i}" for i in range(200)))
    if vote_on_classes(list(Bank.open(root)), task, 15, RunRecord()) is None:
        raise AssertionError("nobody voted")


def repeat(table: pa.Table, count: int) -> pa.Table:
    """Repeat the first row under other ids."""
    rows = table.take(pa.array(np.zeros(count, int)))
    for column in ("id", "path"):
        texts = pa.array([f"tasks/e{i}" if column == "path" else f"e{i}" for i in range(count)])
        rows = rows.set_column(rows.column_names.index(column), rows.schema.field(column), texts)
    return rows


def with_values(table: pa.Table, column: str, values: list[Any]) -> pa.Table:
    field = table.schema.field(column)
    return table.set_column(table.column_names.index(column), field, pa.array(values, field.type))


index_case("1,000,000 rows of nothing", lambda t: repeat(t, 1_000_000).drop_columns(["masks"]).append_column(
    t.schema.field("masks"), pa.array([b""] * 1_000_000, pa.binary())
))  # fmt: skip
index_case("nulls of lists of 1,000,000 numbers", lambda t: t.append_column(
    "more", pa.nulls(len(t), pa.list_(pa.int8(), 1_000_000))
))  # fmt: skip
index_case("500,000 rows", lambda t: repeat(t, 500_000))
index_case("50,000 rows", lambda t: repeat(t, 50_000))
index_case("18,500 rows that are sound", lambda t: with_values(
    with_values(repeat(t, 18_500), "masks", [np.random.default_rng(i).bytes(240) for i in range(18_500)]),
    "sketch",
    [None] * 18_500,
))  # fmt: skip
index_case("14,000 rows that know a class of 200", lambda t: with_values(
    with_values(
        with_values(repeat(t, 14_000), "class_means", [RANDOM.bytes(5 * (6 + 15)) for _ in range(14_000)]),
        "labels",
        [["class 0", *(f"x{i}" for i in range(4))]] * 14_000,
    ),
    "masks",
    [RANDOM.bytes(240) for _ in range(14_000)],
), read=vote)  # fmt: skip
index_case("1,000,000 equal rows", lambda t: t.take(pa.array(np.zeros(1_000_000, int))))
index_case("rows of 10,000 labels", lambda t: with_values(repeat(t, 2000), "labels", [["x"] * 10_000] * 2000))
index_case("a label of 100 MB", lambda t: with_values(t, "labels", [["x" * 100_000_000, "y"], ["a", "b"]]))
index_case("a mask of 100 MB", lambda t: with_values(t, "masks", [b"\xff" * 100_000_000, b""]))
index_case("a sketch of 100 MB", lambda t: with_values(t, "sketch", [b"\0" * 100_000_000, None]))
index_case(
    "metrics of 60 MB", lambda t: with_values(repeat(t, 1000), "metrics", ['{"a": "' + "x" * 60_000 + '"}'] * 1000)
)
index_case(
    "metrics of 900 MB", lambda t: with_values(repeat(t, 1000), "metrics", ['{"a": "' + "x" * 900_000 + '"}'] * 1000)
)
index_case("methods of 900 MB", lambda t: with_values(
    with_values(repeat(t, 15_000), "method", ["x" * 60_000] * 15_000), "masks",
    [np.random.default_rng(i).bytes(240) for i in range(15_000)],
))  # fmt: skip
for length in (1000, 100_000):
    index_case(f"an unknown column of {length} bytes per row", lambda t, length=length: repeat(t, 5000).append_column(
        "more", pa.array([b"x" * length] * 5000, pa.binary(length))
    ))  # fmt: skip
index_case("labels of 900 MB", lambda t: with_values(repeat(t, 1000), "labels", [["x" * 900_000, "y"]] * 1000))
index_case("5,000 unknown columns", lambda t: pa.table({
    **dict(zip(t.column_names, t.columns, strict=True)), **{f"c{i}": pa.nulls(len(t), pa.int8()) for i in range(5000)}
}))  # fmt: skip


@case("index: rows that a second field hides")
def decoy_rows(folder: Path) -> tuple[Path, Callable[[], object]]:
    path, read = CASES["index: 1,000,000 rows of nothing"](folder)
    content = path.read_bytes()
    size = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - size : -9] + b"\x05\x06\x04\x00"  # field 3 once more, of a type that pyarrow skips
    path.write_bytes(content[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return path, read


@case("index: pages that overlap")
def overlapping_pages(folder: Path) -> tuple[Path, Callable[[], object]]:
    root = copy_bank(folder)
    column = b"\x3c\x56\x02\x16\x02\x16\x80\xc0\x80\x02\x26\x08\x00\x00"  # 2 MB of pages from byte 4 on
    footer = b"\x36\x02\x19\x1c\x19\xfc\xc7\x01" + column * 199 + b"\x00\x00"
    pages = b"\x25\x00\x15\x00\x00" * 420_000
    (root / "index.parquet").write_bytes(b"PAR1" + pages + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return root / "index.parquet", lambda: read_bank(root)


@case("index: lists in the headers of pages")
def lists_in_headers(folder: Path) -> tuple[Path, Callable[[], object]]:
    root = copy_bank(folder)
    page = b"\x25\x00\x15\x00" + b"\x69\xf9\xe0\xd4\x03" + b"\x09" * 60_000 + b"\x00"
    pages, number = page * 80, bytearray()
    left = 2 * len(pages)  # a varint of a number that is not negative
    while left >= 0x80:
        number.append(left & 0x7F | 0x80)
        left >>= 7
    column = b"\x3c\x56\x02\x16\x02\x16" + bytes([*number, left]) + b"\x26\x08\x00\x00"
    footer = b"\x36\x02\x19\x1c\x19\x1c" + column + b"\x00\x00"
    (root / "index.parquet").write_bytes(b"PAR1" + pages + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return root / "index.parquet", lambda: read_bank(root)


index_case("metrics of 120 numbers in 18,500 rows", lambda t: with_values(
    with_values(repeat(t, 18_500), "masks", [np.random.default_rng(i).bytes(240) for i in range(18_500)]),
    "metrics",
    [json.dumps({f"a{i}": 0.5 for i in range(120)})] * 18_500,
))  # fmt: skip
index_case("an unknown column", lambda t: t.append_column("more", pa.array(["x" * 50_000_000, "y"])))
for count in (40, 65):
    index_case(f"lists in the metrics of {count} rows", lambda t, count=count: with_values(
        repeat(t, count), "metrics", [json.dumps({"a": [[]] * (980_000 // count)})] * count
    ))  # fmt: skip

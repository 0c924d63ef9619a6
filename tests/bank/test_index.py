"""``index.parquet`` as a file: what it says of its size, and damage that pyarrow overlooks or does not survive."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_metaprune.bank.bank import Bank
from hf_metaprune.bank.index import read_table
from hf_metaprune.errors import FormatError
from hf_metaprune.files.footer import read_stated_size
from tests import forked


def read_flipped(index: Path, path: Path, log: Path) -> None:
    """Read an index with single bits of its footer flipped, and note how often it was refused."""
    whole, refusals = index.read_bytes(), 0
    footer = int.from_bytes(whole[-8:-4], "little")
    for i in range(len(whole) - 8 - footer, len(whole), 3):
        content = bytearray(whole)
        content[i] ^= 1 << i % 8
        path.write_bytes(content)
        try:
            read_table(path)
        except FormatError:
            refusals += 1
    log.write_text(str(refusals))


@given(
    rows=st.lists(st.tuples(st.lists(st.text(max_size=5), max_size=4), st.integers(0, 9)), max_size=40),
    group=st.integers(1, 20),
)
def test_the_stated_size_is_what_pyarrow_says(rows: list[tuple[list[str], int]], group: int) -> None:
    kinds = pa.schema([("texts", pa.list_(pa.string())), ("number", pa.int64())])
    table = pa.Table.from_pylist([{"texts": texts, "number": number} for texts, number in rows], kinds)
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=group, use_dictionary=False)
    metadata = pq.read_metadata(sink)
    chunks = [metadata.row_group(g).column(c) for g in range(metadata.num_row_groups) for c in range(2)]
    size = sum(chunk.total_uncompressed_size + 8 * chunk.num_values for chunk in chunks)
    assert read_stated_size(sink) == (len(rows), size)


@given(content=st.binary(max_size=60))
def test_a_footer_of_any_bytes_is_read_or_refused(content: bytes) -> None:
    try:
        read_stated_size(io.BytesIO(b"PAR1" + content + len(content).to_bytes(4, "little") + b"PAR1"))
    except ValueError as error:
        assert "footer" in str(error) or "Parquet" in str(error)


@pytest.mark.slow
def test_no_altered_footer_ends_the_process(own_bank: Bank, tmp_path: Path) -> None:
    """pyarrow, 26.0.1 for one, ends the process on some altered footers; it must never see them."""
    paths = (own_bank.root / "index.parquet", tmp_path / "x.parquet", tmp_path / "log")
    forked.run(read_flipped, *paths)
    assert int(paths[-1].read_text()) > 100


def test_every_altered_page_is_noticed(own_bank: Bank) -> None:
    """Sketches are told nowhere else: only the pages' checksums see that one was altered."""
    path = own_bank.root / "index.parquet"
    whole, before = path.read_bytes(), read_table(path)
    chunk = next(c for c in _chunks(path) if c.path_in_schema == "sketch")
    start, refusals = chunk.dictionary_page_offset, 0
    for i in range(start, start + chunk.total_compressed_size, chunk.total_compressed_size // 150):
        content = bytearray(whole)
        content[i] ^= 4
        path.write_bytes(content)
        try:
            assert read_table(path).equals(before), i  # bits of a page's header that say nothing
        except FormatError:
            refusals += 1
    assert refusals > 100


def _chunks(path: Path) -> list[pq.ColumnChunkMetaData]:
    group = pq.read_metadata(path).row_group(0)
    return [group.column(c) for c in range(group.num_columns)]


def shorten_stated_size(path: Path, column: str) -> None:
    """Change the unpacked size that a footer states for a column into 1000, in as many bytes."""
    content = path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    chunk = next(c for c in _chunks(path) if c.path_in_schema == column)

    def varint(value: int, length: int = 0) -> bytes:
        value, parts = value << 1, []
        while value > 0x7F or len(parts) < length - 1:
            parts.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*parts, value])

    stated = varint(chunk.total_uncompressed_size)
    assert content[start:].count(stated) == 1
    path.write_bytes(content[:start] + content[start:].replace(stated, varint(1000, len(stated))))


def test_the_headers_of_pages_count_too(own_bank: Bank) -> None:
    """Readers take memory for what they say, whatever the footer says."""
    path = own_bank.root / "index.parquet"
    table = pq.read_table(path)
    masks = pa.array([b"\xff" * 40_000_000] + [b""] * (len(table) - 1), pa.binary())
    table = table.set_column(table.column_names.index("masks"), table.schema.field("masks"), masks)
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    shorten_stated_size(path, "masks")
    with open(path, "rb") as file:
        assert read_stated_size(file)[1] > 40_000_000
    with pytest.raises(FormatError, match="states 4 rows and 4[0-9]{7} bytes"):
        read_table(path)


def test_an_index_has_few_columns_and_a_short_footer(own_bank: Bank) -> None:
    path = own_bank.root / "index.parquet"
    table = pq.read_table(path)
    for count, message in ((250, "more than 200 columns"), (20_000, "end like a Parquet file")):
        wide = pa.table(
            {
                **{f"c{i}": pa.nulls(len(table), pa.int8()) for i in range(count)},
                **dict(zip(table.column_names, table.columns, strict=True)),
            }
        )
        pq.write_table(wide, path)
        with pytest.raises(FormatError, match=message):
            read_table(path)


GROUP_ROWS = b"\x26\x02"  # field 3 of a row group: one row, as the footer says


@pytest.mark.parametrize(
    ("packed", "start", "message"),
    [
        ((8, b"\x03abc"), 4, "does not state the size"),  # a text in the place of a number
        ((6, b"\x02"), 1 << 60, "outside of the file"),
        ((6, b"\x01"), 4, "outside of the file"),  # of length -1
    ],
)
def test_pages_that_cannot_be_there_are_refused(packed: tuple[int, bytes], start: int, message: str) -> None:
    number = b"".join(bytes([start << 1 >> 7 * i & 0x7F | 0x80]) for i in range(9)) + b"\x00"
    kind, value = packed
    column = b"\x56\x02\x16\x02" + bytes([0x10 | kind]) + value + b"\x26" + number + b"\x00"  # fields 5, 6, 7 and 9
    group = b"\x19\x1c" + b"\x3c" + column + b"\x00" + GROUP_ROWS + b"\x00"
    footer = b"\x36\x02" + b"\x19\x1c" + group + b"\x00"
    content = b"PAR1" + bytes(8) + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    with pytest.raises(ValueError, match=message):
        read_stated_size(io.BytesIO(content))


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int8(), 1000), pa.list_(pa.list_(pa.int8(), 9)), pa.struct([("a", pa.list_(pa.int8(), 9))])]
)
def test_lists_of_a_fixed_length_are_refused(own_bank: Bank, kind: pa.DataType) -> None:
    """A null takes the place of a whole list."""
    path = own_bank.root / "index.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("more", pa.nulls(len(table), kind)), path)
    with pytest.raises(FormatError, match="column more has lists of a fixed length"):
        read_table(path)


def test_bytes_of_a_fixed_length_are_refused(own_bank: Bank) -> None:
    """A dictionary has each value once, and a row may repeat it."""
    path = own_bank.root / "index.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("more", pa.array([b"x" * 1000] * len(table), pa.binary(1000))), path)
    with pytest.raises(FormatError, match="column more has bytes of a fixed length"):
        read_table(path)


def with_footer(path: Path, change: Callable[[bytes], bytes]) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[-8:-4], "little")
    footer = change(content[-8 - size : -8])
    path.write_bytes(content[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize("kind", [b"\x05", b"\x06"])  # I32, which pyarrow skips, and I64
def test_a_field_that_is_there_twice_is_refused(own_bank: Bank, kind: bytes) -> None:
    """One number of rows for the check, and another one for pyarrow."""
    path = own_bank.root / "index.parquet"
    with_footer(path, lambda footer: footer[:-1] + kind + b"\x06\x04" + b"\x00")  # field 3 is 2
    with pytest.raises(FormatError, match="a field twice"):
        read_table(path)


def test_pages_that_overlap_are_refused(own_bank: Bank) -> None:
    """Or one header would be read once for each chunk that names it."""
    column = b"\x56\x02\x16\x02\x16\x78\x26\x08\x00"  # fields 5, 6, 7 and 9: 60 bytes from 4 on
    group = b"\x19\x3c" + (b"\x3c" + column + b"\x00") * 3 + GROUP_ROWS + b"\x00"
    footer = b"\x36\x02" + b"\x19\x1c" + group + b"\x00"
    page = b"\x25\x00\x15\x00" + b"\x00"  # unpacked and packed of 0 bytes
    content = b"PAR1" + page * 12 + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    with pytest.raises(ValueError, match="overlap"):
        read_stated_size(io.BytesIO(content))


def test_values_in_the_header_of_a_page_are_counted() -> None:
    """Lists of empty lists, 20,000 times, took 10 seconds."""
    column = b"\x56\x02\x16\x02\x16\x78\x26\x08\x00"  # fields 5, 6, 7 and 9: 60 bytes from 4 on
    group = b"\x19\x1c" + b"\x3c" + column + b"\x00" + GROUP_ROWS + b"\x00"
    footer = b"\x36\x02" + b"\x19\x1c" + group + b"\x00"
    page = b"\x25\x02\x15\x02" + b"\x69\xf9\xc9\x01" + b"\x09" * 201 + b"\x00"
    content = b"PAR1" + page + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    with pytest.raises(ValueError, match="too many values"):
        read_stated_size(io.BytesIO(content))


def test_metrics_of_all_rows_are_bounded(own_bank: Bank) -> None:
    """Each becomes Python objects, which take ten times the memory of the text."""
    path = own_bank.root / "index.parquet"
    table = pq.read_table(path)
    values = "{" + ",".join(f'"{i:06}":0.5' for i in range(100_000)) + "}"
    metrics = pa.array([values] * 4 + ["{}"] * (len(table) - 4), pa.string())
    pq.write_table(table.set_column(table.column_names.index("metrics"), table.schema.field("metrics"), metrics), path)
    with pytest.raises(FormatError, match="the metrics of its rows have"):
        read_table(path)


def test_lists_in_the_metrics_of_all_rows_are_bounded(own_bank: Bank) -> None:
    """The same text in each row packs to nothing, and Python takes long to make lists."""
    path = own_bank.root / "index.parquet"
    table = pq.read_table(path)
    values = '{"a":[' + ",".join(["[]"] * 40_000) + "]}"
    metrics = pa.array([values] * len(table), pa.string())
    pq.write_table(table.set_column(table.column_names.index("metrics"), table.schema.field("metrics"), metrics), path)
    assert path.stat().st_size < 20_000
    with pytest.raises(FormatError, match="lists and objects"):
        read_table(path)


@pytest.mark.parametrize("column", ["id", "size", "masks", "sha256"])
def test_an_index_with_a_row_that_lacks_a_value_is_not_written_again(own_bank: Bank, column: str) -> None:
    model = next(iter(own_bank)).load_model()
    path = own_bank.root / "index.parquet"
    table = pq.read_table(path)
    values = pa.array([None, *table[column].to_pylist()[1:]], table.schema.field(column).type)
    field = pa.field(column, values.type, nullable=True)
    pq.write_table(table.set_column(table.column_names.index(column), field, values), path)
    bank, content = Bank.open(own_bank.root, strict=False), path.read_bytes()
    folders = sorted(p.name for p in (own_bank.root / "tasks").iterdir())
    for change in (lambda: bank.remove(next(iter(bank)).id), lambda: bank.add(model, "new-one")):
        with pytest.raises(FormatError, match=f"a row has no {column}"):
            change()
    assert path.read_bytes() == content
    assert sorted(p.name for p in (own_bank.root / "tasks").iterdir()) == folders

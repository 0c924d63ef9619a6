"""What a Parquet file says of its size, where its parts do not agree: the largest counts, or the file is refused."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_metaprune.files.footer import read_stated_size

NEXT_NUMBER = b"\x16"
"""The head of a long number in the next field: the rows of the file, or of a group, or the values of a chunk."""


def write(table: pa.Table, **options: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def varint(value: int) -> bytes:
    """A number of Thrift's compact protocol, zigzag."""
    value, out = value << 1, bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def replaced(content: bytes, old: int, new: int, count: int) -> bytes:
    """Replace the first of `count` equal numbers in a file's footer: its rows come before those of groups."""
    length = int.from_bytes(content[-8:-4], "little")
    body, footer = content[: -8 - length], content[-8 - length : -8]
    assert footer.count(NEXT_NUMBER + varint(old)) == count, footer.count(NEXT_NUMBER + varint(old))
    footer = footer.replace(NEXT_NUMBER + varint(old), NEXT_NUMBER + varint(new), 1)
    return body + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def stated(content: bytes) -> tuple[int, int]:
    return read_stated_size(io.BytesIO(content))


TABLE = pa.table({"x": pa.nulls(3000, pa.int32())})


def test_a_sound_file_states_its_size() -> None:
    rows, n_bytes = stated(write(TABLE))
    assert rows == 3000
    assert 8 * 3000 <= n_bytes < 8 * 3000 + 1000


def test_rows_of_row_groups_are_those_of_the_file() -> None:
    """A reader would take those of the groups."""
    content = write(TABLE)
    assert pq.read_table(io.BytesIO(replaced(content, 3000, 8, 3))).num_rows == 3000
    few = replaced(content, 3000, 8, 3)
    with pytest.raises(ValueError, match="other rows than its row groups"):
        stated(few)


def test_values_of_pages_count_whatever_the_footer_says() -> None:
    """A list of many nulls in a row, which the footer calls one value."""
    table = pa.table({"x": pa.array([[None] * 100_000], pa.list_(pa.int8()))})
    content = replaced(write(table), 100_000, 1, 1)
    assert pq.read_metadata(io.BytesIO(content)).row_group(0).column(0).num_values == 1
    assert len(pq.read_table(io.BytesIO(content))["x"][0]) == 100_000
    assert stated(content)[1] >= 800_000


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_of_both_kinds_state_their_values(version: str) -> None:
    table = pa.table({"x": pa.array([[None] * 5000] * 3, pa.list_(pa.int8()))})
    content = write(table, data_page_version=version)
    hidden = replaced(content, 15_000, 1, 1)
    assert stated(hidden)[1] >= 8 * 15_000


def with_field(content: bytes, number: int) -> bytes:
    """Put a field into the footer's end, with a number that needs more than 16 bits."""
    length = int.from_bytes(content[-8:-4], "little")
    body, footer = content[: -8 - length], content[-8 - length : -8]
    assert footer[-1:] == b"\0"
    zigzag = (number << 1) ^ (number >> 63)
    wide = bytearray()
    while zigzag > 0x7F:
        wide.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    footer = footer[:-1] + b"\x06" + bytes([*wide, zigzag]) + varint(5) + b"\0"
    return body + footer + len(footer).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize("number", [65_538, 32_768, 0, -3])
def test_fields_have_numbers_that_all_readers_know(number: int) -> None:
    """pyarrow takes field 65,538 for field 2."""
    assert stated(with_field(write(TABLE), 20_000))[0] == 3000
    with pytest.raises(ValueError, match="field of a number that is none"):
        stated(with_field(write(TABLE), number))


def test_entries_of_dictionaries_count(tmp_path: Path) -> None:
    """A reader makes them all, though rows may use few of them."""
    n = 100_000
    texts = pa.array([f"{i:06x}" for i in range(n)])
    table = pa.table({"x": pa.DictionaryArray.from_arrays(pa.array([0, n - 1], pa.int32()), texts)})
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path, dictionary_pagesize_limit=1 << 30, store_schema=False, compression="zstd")
    assert len(pq.read_table(path, read_dictionary=["x"])["x"].chunk(0).dictionary) == n
    assert stated(path.read_bytes())[1] >= 90 * n

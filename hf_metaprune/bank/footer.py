"""What a Parquet file says of its own size, read without pyarrow.

pyarrow's ``RowGroupMetaData.column`` ends the whole process where a file's size statistics are damaged, since the C++
exception is caught nowhere; what it would tell is needed before a stranger's file is unpacked. The footer is a Thrift
struct in the compact protocol (parquet-format, ``parquet.thrift``).
"""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO

MAGIC = b"PAR1"
MAX_FOOTER_BYTES = 4 << 20  # that of a bank has some 10 kB
MAX_DEPTH = 16

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_ROW_GROUPS, _ROWS = 4, 3  # of FileMetaData
_COLUMNS, _META = 1, 3  # of RowGroup, of ColumnChunk
_VALUES, _UNPACKED = 5, 6  # of ColumnMetaData


def stated_size(file: BinaryIO) -> tuple[int, int]:
    """The rows, and the bytes that all column chunks unpack to with 8 more for each value, that a file states.

    Raises:
        ValueError: the footer is damaged, encrypted, or too large.
    """
    footer = _Compact(_footer(file)).struct()
    try:
        chunks = [chunk[_META] for group in footer[_ROW_GROUPS] for chunk in group[_COLUMNS]]
        unpacked = sum(max(0, chunk[_UNPACKED]) + 8 * max(0, chunk[_VALUES]) for chunk in chunks)
        return int(footer[_ROWS]), int(unpacked)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError("its footer lacks what tells the size of columns") from error


def _footer(file: BinaryIO) -> bytes:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or not 0 < length <= min(end - 12, MAX_FOOTER_BYTES):
        raise ValueError("it does not end like a Parquet file")
    file.seek(end - 8 - length)
    return file.read(length)


class _Compact:
    """Reads values of the compact protocol: structs as dictionaries by field id; of repeated fields the last counts."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def take(self, count: int) -> bytes:
        found = self.data.read(count)
        if len(found) < count:
            raise ValueError("its footer is cut short")
        return found

    def unsigned(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("its footer has a number of more than 64 bits")

    def signed(self) -> int:
        value = self.unsigned()
        return (value >> 1) ^ -(value & 1)

    def struct(self, depth: int = 0) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while (head := self.take(1)[0]) != 0:
            number = number + (head >> 4) if head >> 4 else self.signed()
            kind = head & 0x0F
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self.value(kind, depth)
        return fields

    def value(self, kind: int, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError("its footer nests too deep")
        if kind in (_TRUE, _FALSE, _BYTE):
            return self.take(1)[0]  # as items of lists; as fields, truth is a part of the kind
        if kind in (_I16, _I32, _I64):
            return self.signed()
        if kind == _DOUBLE:
            return self.take(8)
        if kind == _BINARY:
            return self.take(self.unsigned())
        if kind in (_LIST, _SET):
            return self.items(depth)
        if kind == _MAP:
            return self.pairs(depth)
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ValueError(f"its footer has a value of unknown kind {kind}")

    def items(self, depth: int) -> list[Any]:
        head = self.take(1)[0]
        count = head >> 4 if head >> 4 < 15 else self.unsigned()
        return [self.value(head & 0x0F, depth + 1) for _ in range(count)]

    def pairs(self, depth: int) -> None:
        count = self.unsigned()
        kinds = self.take(1)[0] if count else 0
        for _ in range(count):
            self.value(kinds >> 4, depth + 1)
            self.value(kinds & 0x0F, depth + 1)

"""The size that a Parquet file states in its footer, read without pyarrow.

The size must be known before a stranger's file is unpacked. pyarrow (26.0.1) cannot tell it safely: some damaged
footers end the whole process by a C++ exception that nothing catches. The footer is a Thrift struct in the compact
protocol (parquet-format, ``parquet.thrift``).
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any, BinaryIO

MAGIC = b"PAR1"
MAX_DEPTH = 16
"""Most levels of nested values."""

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_ROW_GROUPS, _ROWS = 4, 3  # of FileMetaData
_COLUMNS, _GROUP_ROWS, _META = 1, 3, 3  # of RowGroup, of ColumnChunk
_VALUES, _UNPACKED, _PACKED, _DATA_START, _DICTIONARY_START = 5, 6, 7, 9, 11  # of ColumnMetaData
_PAGE_UNPACKED, _PAGE_PACKED, _PAGE_V1, _PAGE_DICTIONARY, _PAGE_V2 = 2, 3, 5, 7, 8  # of PageHeader
_PAGE_VALUES = 1  # of DataPageHeader, DictionaryPageHeader and DataPageHeaderV2
_MAX_FIELD = 0x7FFF  # other readers keep 16 bits of a field's number
MAX_COLUMNS = 200
"""Most columns."""
MAX_PAGE_HEADER_BYTES = 1 << 16  # statistics of a page may have two values
DICTIONARY_WEIGHT = 12
"""As how many values an entry of a dictionary counts: pyarrow takes some hundred bytes for each."""
MAX_PAGE_VALUES = 200
"""Most values in the header of a page."""


@dataclass(frozen=True)
class FooterLimits:
    """The most that a Parquet file may hold to be read at all."""

    footer_bytes: int = 512 << 10
    """Bytes of the footer; that of a bank's index has some 10 kB."""
    footer_values: int = 200_000
    """Values in the footer."""
    pages: int = 20_000
    """Pages of all columns together."""


def read_stated_size(file: BinaryIO, limits: FooterLimits = FooterLimits()) -> tuple[int, int]:
    """Read the size that a Parquet file states for itself, in its footer and in the headers of its pages.

    The headers count, because readers take memory for what these say.

    Args:
        file: the file, opened for reading.
        limits: the most that it may hold.

    Returns:
        The number of rows, and the bytes that all pages unpack to, with 8 more per value, and 96 per dictionary entry.

    Raises:
        ValueError: the footer or a page's header is damaged, encrypted, or too large; or there are too many columns or
            pages.
    """
    footer = _CompactReader(_read_footer(file, limits.footer_bytes), limits.footer_values).read_struct()
    try:
        groups = [[chunk[_META] for chunk in group[_COLUMNS]] for group in footer[_ROW_GROUPS]]
        group_rows = [_number(group, _GROUP_ROWS) for group in footer[_ROW_GROUPS]]
        chunks = [chunk for group in groups for chunk in group]
        n_values = sum(max(0, _number(chunk, _VALUES)) for chunk in chunks)
        stated_bytes = sum(max(0, _number(chunk, _UNPACKED)) for chunk in chunks)
        places = [(_first_page(chunk), _number(chunk, _PACKED)) for chunk in chunks if _number(chunk, _VALUES) > 0]
        rows = _number(footer, _ROWS)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError("its footer does not state the size of the columns") from error
    if min(group_rows, default=0) < 0 or sum(group_rows) != rows:
        raise ValueError("its footer states other rows than its row groups do")
    if any(len(group) > MAX_COLUMNS for group in groups):
        raise ValueError(f"it has more than {MAX_COLUMNS} columns")
    page_bytes, page_values = _page_sizes(file, places, limits.pages)
    return rows, 8 * max(n_values, page_values) + max(stated_bytes, page_bytes)


def _first_page(chunk: dict[int, Any]) -> int:
    """Return the place in the file where a column chunk begins."""
    data_start = _number(chunk, _DATA_START)
    dictionary_start = _number(chunk, _DICTIONARY_START) if _DICTIONARY_START in chunk else 0
    return min(data_start, dictionary_start) if dictionary_start > 0 else data_start


def _number(struct: dict[int, Any], number: int, kind: int = _I64) -> int:
    """Return a number of a struct.

    Raises:
        LookupError: there is none, or one of another kind, which other readers would skip.
    """
    if not isinstance(struct, dict) or struct.get(-number) != kind:
        raise LookupError(number)
    return int(struct[number])


def _page_sizes(file: BinaryIO, places: list[tuple[int, int]], max_pages: int) -> tuple[int, int]:
    """Return the bytes that pages unpack to, and the values in them, as their headers say.

    Args:
        file: the file.
        places: start and length of each column chunk.
        max_pages: most pages.

    Raises:
        ValueError: a header is damaged, or there are too many pages.
    """
    total = values = count = covered_bytes = 0
    end = file.seek(0, os.SEEK_END)
    for start, length in places:
        if not 0 <= start <= start + length <= end:
            raise ValueError("its footer names pages outside of the file")
        position = start
        while position < start + length:
            count += 1
            if count > max_pages:
                raise ValueError(f"it has more than {max_pages} pages")
            file.seek(position)
            reader = _CompactReader(file.read(MAX_PAGE_HEADER_BYTES), MAX_PAGE_VALUES)
            header = reader.read_struct()
            try:
                unpacked, packed = _number(header, _PAGE_UNPACKED, _I32), _number(header, _PAGE_PACKED, _I32)
            except LookupError as error:
                raise ValueError("a header of its pages does not state a size") from error
            if unpacked < 0 or packed < 0:
                raise ValueError("a header of its pages does not state a size")
            total += unpacked
            values += _page_values(header)
            page_bytes = reader.data.tell() + packed
            position, covered_bytes = position + page_bytes, covered_bytes + page_bytes
            if covered_bytes > end:  # else one header could be read again and again
                raise ValueError("its pages overlap")
    return total, values


def _page_values(header: dict[int, Any]) -> int:
    """Return the values in a page, as its header says, which readers believe; those of a dictionary cost more."""
    values = 0
    for place, weight in ((_PAGE_V1, 1), (_PAGE_DICTIONARY, DICTIONARY_WEIGHT), (_PAGE_V2, 1)):
        if place in header:
            try:
                values = max(values, weight * _number(header[place], _PAGE_VALUES, _I32))
            except LookupError as error:
                raise ValueError("a header of its pages does not state its values") from error
    return values


def _read_footer(file: BinaryIO, max_bytes: int) -> bytes:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or not 0 < length <= min(end - 12, max_bytes):
        raise ValueError("it does not end like a Parquet file")
    file.seek(end - 8 - length)
    return file.read(length)


class _CompactReader:
    """A reader of the compact protocol; structs become dictionaries of values by field id, and of kinds by -id."""

    def __init__(self, data: bytes, max_values: int) -> None:
        self.data, self.n_left = io.BytesIO(data), max_values

    def _read(self, count: int) -> bytes:
        content = self.data.read(count)
        if len(content) < count:
            raise ValueError("its footer is cut short")
        return content

    def _read_unsigned(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._read(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("its footer has a number of more than 64 bits")

    def _read_signed(self) -> int:
        value = self._read_unsigned()
        return (value >> 1) ^ -(value & 1)

    def read_struct(self, depth: int = 0) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._read(1)[0]) != 0:
            number = number + (head >> 4) if head >> 4 else self._read_signed()
            kind = head & 0x0F
            if not 0 < number <= _MAX_FIELD:
                raise ValueError("its footer has a field of a number that is none")
            if number in fields:  # other readers take the first or the last, or that of the right kind
                raise ValueError("its footer has a field twice")
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._read_value(kind, depth)
            fields[-number] = kind
        return fields

    def _read_value(self, kind: int, depth: int) -> Any:
        self.n_left -= 1
        if depth > MAX_DEPTH or self.n_left < 0:
            raise ValueError("its footer nests too deep, or has too many values")
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._read(1)[0]  # a bool in a list has a byte; one in a struct is part of its kind
        if kind in (_I16, _I32, _I64):
            return self._read_signed()
        if kind == _DOUBLE:
            return self._read(8)
        if kind == _BINARY:
            return self._read(self._read_unsigned())
        if kind in (_LIST, _SET):
            return self._read_list(depth)
        if kind == _MAP:
            return self._skip_map(depth)
        if kind == _STRUCT:
            return self.read_struct(depth + 1)
        raise ValueError(f"its footer has a value of unknown kind {kind}")

    def _read_list(self, depth: int) -> list[Any]:
        head = self._read(1)[0]
        count = head >> 4 if head >> 4 < 15 else self._read_unsigned()
        return [self._read_value(head & 0x0F, depth + 1) for _ in range(count)]

    def _skip_map(self, depth: int) -> None:
        count = self._read_unsigned()
        kinds = self._read(1)[0] if count else 0
        for _ in range(count):
            self._read_value(kinds >> 4, depth + 1)
            self._read_value(kinds & 0x0F, depth + 1)

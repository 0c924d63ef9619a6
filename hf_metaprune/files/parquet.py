"""How much a Parquet file takes in memory, where one value may stand for many, and a null for a whole list."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def text_columns(schema: pq.ParquetSchema) -> list[str]:
    """Return the paths of the columns of texts or bytes of any length, also inside structs and lists.

    Args:
        schema: the schema of the file.

    Returns:
        The paths. Columns that are read with ``read_dictionary`` of them stay dictionaries of distinct values.
    """
    leaves = [schema.column(number) for number in range(len(schema))]
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]


def text_bytes(array: pa.Array) -> int:
    """Return the bytes that the texts of an array will take, without making them.

    Args:
        array: an array whose texts are dictionaries, also inside structs and lists.
    """
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return text_bytes(array.flatten())
    if pa.types.is_map(kind):
        return text_bytes(array.keys) + text_bytes(array.items)
    if pa.types.is_struct(kind):
        return sum(text_bytes(array.field(number)) for number in range(kind.num_fields))
    if not pa.types.is_dictionary(kind):
        return 0
    used = array.indices.value_counts()  # a dictionary may have many more values than an array uses
    lengths = pc.binary_length(array.dictionary.take(used.field("values"))).cast(pa.int64())
    return pc.sum(pc.multiply(lengths, used.field("counts"))).as_py() or 0


def fixed_places(kind: pa.DataType) -> int:
    """Return how many values of lists of fixed length a row of a type has, which a null has, too."""
    places = sum(fixed_places(kind.field(number).type) for number in range(kind.num_fields))
    return kind.list_size * max(1, places) if pa.types.is_fixed_size_list(kind) else places

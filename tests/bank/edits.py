"""The first entry of a bank, and changes of its files as others might make them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hf_metaprune.bank.bank import Bank
from hf_metaprune.bank.entry import Entry


def first(bank: Bank) -> Entry:
    return next(iter(bank))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_index(bank: Bank, **changes: object) -> None:
    """Change fields of the first row of the index."""
    table = pq.read_table(bank.root / "index.parquet")
    rows = table.to_pylist()
    rows[0] |= changes
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), bank.root / "index.parquet")
    bank.reload()

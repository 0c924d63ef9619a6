"""Writing a bank on this machine: atomic, and safe between processes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from ..errors import BankError, BaseMismatchError, LockedError
from ..files.layout import INDEX_FILE, LOCKS_FOLDER, TEMPORARY
from ..files.reading import check_no_links
from ..files.storage import new_folder, storage_errors, write_bytes
from ..models.modeling import MetaPrunedForImageClassification
from ..models.saving import save_model
from .entry import Entry
from .entry_checks import check_id, check_ratio_and_metrics
from .folders import check_entry_path, entry_from_folder, new_path
from .index import check_complete, index_bytes, make_table, merge_tables, read_table
from .reader import BankReader

LOCK_SECONDS = 60.0
"""Seconds that a writer waits for another process."""


class BankWriter(BankReader):
    """A bank that can be changed: each change holds a lock between processes, and happens whole or not at all."""

    @contextlib.contextmanager
    def lock(self, name: str = "bank", timeout: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold a lock between processes; the operating system frees it when a process dies.

        Args:
            name: which lock; ``bank`` is the one for changes of the index.
            timeout: seconds to wait; -1 waits for ever.

        Raises:
            BankError: the bank is on the Hub.
            LockedError: another process holds the lock longer than `timeout`.
        """
        if not self.files.writable:
            raise BankError(
                f"{self.files.name} is on the Hub: change it with `hf-metaprune bank add`, `bank remove` or `bank sync`"
            )
        folder = self.root / LOCKS_FOLDER
        check_no_links(self.root, f"{LOCKS_FOLDER}/{name}.lock")
        with storage_errors(folder, "write"):
            folder.mkdir(exist_ok=True)
            lock = FileLock(folder / f"{name}.lock")
            try:
                lock.acquire(timeout=timeout)
            except Timeout:
                raise LockedError(f"{self.root}: another process holds its lock {name!r}; try again later") from None
        try:
            yield
        finally:
            lock.release()

    def write_index(self, entries: Mapping[str, Entry]) -> None:
        """Write an index of exactly these entries; the caller holds the lock, or nobody else knows the folder."""
        table = make_table([entry.row() for entry in entries.values()])
        write_bytes(self.root / INDEX_FILE, index_bytes(table, self.meta))

    def complete_table(self) -> pa.Table:
        """Return the index as a table that can be written again.

        Raises:
            FormatError: the index is damaged, or a row lacks a required value.
        """
        return check_complete(read_table(self.root / INDEX_FILE), self.root / INDEX_FILE)

    def update_index(self, changes: Mapping[str, Entry | None], *, known_only: bool = False) -> None:
        """Write entries into the index, or drop them from it; changes of other processes are kept.

        Args:
            changes: entries by id; None drops an entry.
            known_only: whether to leave out entries that another process has removed or changed meanwhile.
        """
        with self.lock():
            table = self.complete_table()
            known_digests = dict(zip(table["id"].to_pylist(), table["sha256"].to_pylist(), strict=True))
            rows = [entry.row() for entry in changes.values() if entry is not None]
            changed_rows = [row for row in rows if not known_only or known_digests.get(row["id"]) == row["sha256"]]
            table = merge_tables(table, make_table(changed_rows), [i for i, entry in changes.items() if entry is None])
            write_bytes(self.root / INDEX_FILE, index_bytes(table, self.meta))
            self.reload()

    def replace_index(self, entries: Mapping[str, Entry]) -> None:
        """Replace the index by one of exactly these entries."""
        with self.lock():
            self.write_index(entries)
            self._entries = dict(sorted(entries.items()))

    def check_addition(self, model: MetaPrunedForImageClassification, entry_id: str) -> None:
        """Check that a model can be added as an entry, without adding it.

        Args:
            model: a pruned model of the bank's base.
            entry_id: the id of the entry, see `add`.

        Raises:
            BaseMismatchError: the model belongs to another base.
            BankError: the bank has an entry of that id.
            FormatError: the id has other characters, the metrics are not JSON, or the ratio is not in [0, 1].

        Example:
            ::

                bank.check_addition(result.model, "my-pets")
        """
        check_id(entry_id)
        base_sha256 = (model.config.base_model or {}).get("sha256")
        if base_sha256 != self.base_sha256:
            raise BaseMismatchError(f"the model belongs to base {str(base_sha256)[:12]}..., not to the bank's")
        self.reload()
        if entry_id in self:
            raise BankError(f"{self.root} has an entry {entry_id!r} already: remove it first, or choose another id")
        check_ratio_and_metrics(model.config.ratio, model.config.metrics or {})

    def add(
        self,
        model: MetaPrunedForImageClassification,
        entry_id: str,
        *,
        dtype: str = "float16",
        metrics: Mapping[str, Any] | None = None,
        sketch: bytes | None = None,
        class_means: bytes | None = None,
    ) -> Entry:
        """Store a model as an entry: first its folder, then its row in the index.

        Args:
            model: a pruned model of the bank's base.
            entry_id: 1 to 96 of a-z 0-9 . _ - that do not begin with . _ or -.
            dtype: how the weights are stored: ``float32``, ``float16`` or ``bfloat16``.
            metrics: what was measured, as JSON values; if left out, what the model's config has.
            sketch: what guesses the model's outputs, see `Sketcher`.
            class_means: the packed `ClassMeans` of its classes; if left out, what the model's config has.

        Returns:
            The new entry.

        Raises:
            BaseMismatchError: the model belongs to another base.
            BankError: the bank has an entry of that id.
            FormatError: the id has other characters, the metrics are not JSON, or the ratio is not in [0, 1].
            StorageError: the folder cannot be written.

        Example:
            ::

                entry = bank.add(result.model, "my-pets", metrics={"accuracy": 0.93})
        """
        if metrics is not None:
            model.config.metrics = dict(metrics)
        self.check_addition(model, entry_id)
        self.complete_table()  # or the folder would stay without a row
        path = new_path(entry_id, len(self))
        with new_folder(self.root / path, overwrite=True) as work:
            save_model(model, work, dtype)
        entry = replace(entry_from_folder(self, entry_id, path), sketch=sketch)
        entry = replace(entry, class_means=class_means or entry.class_means)
        self.update_index({entry_id: entry})
        return entry

    def remove(self, entry_id: str) -> None:
        """Remove an entry: first its row in the index, then its files if they exist.

        Args:
            entry_id: id of the entry.

        Raises:
            BankError: there is no such entry.
            FormatError: the path of its files is not that of an entry, or another entry has the same path.
        """
        path = self[entry_id].path
        check_entry_path(path, (entry.path for entry in self if entry.id != entry_id and entry.repo_id is None))
        folder = self.files.path(path)
        self.update_index({entry_id: None})
        trash = folder.with_name(f"{TEMPORARY}{folder.name}-removed")
        with storage_errors(folder, "delete"), contextlib.suppress(FileNotFoundError):
            folder.rename(trash)  # in one step: `recover` must not take half an entry for a whole one
            shutil.rmtree(trash)

"""Writing a bank on this machine: atomic, and safe between processes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from filelock import FileLock, Timeout

from ..errors import BankError, BaseMismatchError, LockedError
from ..files.layout import INDEX_FILE, LOCKS_FOLDER, TEMPORARY
from ..files.storage import new_folder, storage_errors, write_bytes
from ..models.modeling import MetaPrunedForImageClassification
from ..models.saving import save_model
from .entry import Entry, check_facts, check_id
from .folders import check_place, describe, new_path
from .index import index_bytes, make_table, merged, read_table
from .reader import BankReader

LOCK_SECONDS = 60.0


class BankWriter(BankReader):
    """A bank whose folder can be written: each change holds a lock between processes, and is whole or not there."""

    @contextlib.contextmanager
    def lock(self, name: str = "bank", timeout: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold a lock between processes; the system frees it when a process dies.

        Raises:
            LockedError: another process holds it for longer than `timeout` seconds (-1: wait for ever).
        """
        if not self.files.writable:
            raise BankError(f"{self.files.name} is on the Hub: change it with `hf-metaprune bank add`, remove or sync")
        folder = self.root / LOCKS_FOLDER
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
        """Write an index of just these entries; for those who hold the lock, or alone see the folder."""
        table = make_table([entry.row() for entry in entries.values()])
        write_bytes(self.root / INDEX_FILE, index_bytes(table, self.meta))

    def update_index(self, changes: Mapping[str, Entry | None], *, known_only: bool = False) -> None:
        """Write entries into the index, or drop them (None), on top of what other processes wrote.

        `known_only` leaves out those that another process has removed or changed meanwhile.
        """
        with self.lock():
            table = read_table(self.root / INDEX_FILE)
            known = dict(zip(table["id"].to_pylist(), table["sha256"].to_pylist(), strict=True))
            rows = [entry.row() for entry in changes.values() if entry is not None]
            added = [row for row in rows if not known_only or known.get(row["id"]) == row["sha256"]]
            table = merged(table, make_table(added), [i for i, entry in changes.items() if entry is None])
            write_bytes(self.root / INDEX_FILE, index_bytes(table, self.meta))
            self.reload()

    def replace_index(self, entries: Mapping[str, Entry]) -> None:
        """Write an index of just these entries, whatever was there before."""
        with self.lock():
            self.write_index(entries)
            self._entries = dict(sorted(entries.items()))

    def add(
        self,
        model: MetaPrunedForImageClassification,
        entry_id: str,
        *,
        dtype: str = "float16",
        metrics: Mapping[str, Any] | None = None,
        sketch: bytes | None = None,
    ) -> Entry:
        """Store a model as an entry: its folder first, then its row in the index; see `Sketcher` for the sketch.

        Raises:
            BaseMismatchError: the model belongs to another base.
            BankError: the id is taken.
            FormatError: the metrics are not JSON, or the ratio is none.
            StorageError: the folder cannot be written.
        """
        check_id(entry_id)
        found = (model.config.base_model or {}).get("sha256")
        if found != self.base_sha256:
            raise BaseMismatchError(f"the model belongs to base {str(found)[:12]}..., not to the bank's")
        self.reload()
        if entry_id in self:
            raise BankError(f"{self.root} has an entry {entry_id!r} already: remove it first, or choose another id")
        if metrics is not None:
            model.config.metrics = dict(metrics)
        check_facts(model.config.ratio, model.config.metrics or {})
        path = new_path(entry_id, len(self))
        with new_folder(self.root / path, overwrite=True) as work:
            save_model(model, work, dtype)
        entry = replace(describe(self, entry_id, path), sketch=sketch)
        self.update_index({entry_id: entry})
        return entry

    def remove(self, entry_id: str) -> None:
        """Take an entry out of the index, then delete its files, if they are there.

        Raises:
            BankError: there is no such entry.
            FormatError: the index says that its files lie where no entry does, or another one does, too.
        """
        path = self[entry_id].path
        check_place(path, (e.path for e in self if e.id != entry_id and e.repo_id is None))
        folder = self.files.path(path)
        self.update_index({entry_id: None})
        doomed = folder.with_name(f"{TEMPORARY}{folder.name}-removed")
        with storage_errors(folder, "delete"), contextlib.suppress(FileNotFoundError):
            folder.rename(doomed)  # at once, so that no later `recover` takes half of an entry for a whole one
            shutil.rmtree(doomed)

"""Facts about commits on the Hub, stored on disk: a commit never changes, so one request per commit is enough."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files.names import user_path

log = logging.getLogger(__name__)

DATABASE_FILE = "hf-metaprune-commons-2.sqlite"


class Memory:
    """JSON values by key, in an SQLite file that several threads and processes may use.

    The values are lost with the process if the file cannot be written.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()
        with self._lock, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL)")

    @classmethod
    @contextmanager
    def open(cls, cache_dir: str | Path | None = None) -> Iterator[Memory]:
        """Open the memory in a cache folder; that of huggingface_hub if left out."""
        from huggingface_hub import constants

        folder = user_path(cache_dir or constants.HF_HOME)  # not HF_HUB_CACHE, whose entries must be repos
        try:
            folder.mkdir(parents=True, exist_ok=True)
            memory = cls(sqlite3.connect(folder / DATABASE_FILE, timeout=10, check_same_thread=False))
        except (OSError, sqlite3.Error) as error:
            log.warning(
                "facts about models are not stored, because %s cannot be opened: %s", folder / DATABASE_FILE, error
            )
            memory = cls(sqlite3.connect(":memory:", check_same_thread=False))
        try:
            yield memory
        finally:
            memory._connection.close()

    def get(self, key: str) -> Any | None:
        """Return the stored value, or None."""
        with self._lock, contextlib.suppress(sqlite3.Error, ValueError):
            row = self._connection.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
            return json.loads(row[0]) if row else None
        return None

    def put(self, key: str, value: Any) -> None:
        """Store a value."""
        with self._lock, contextlib.suppress(sqlite3.Error), self._connection:
            self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, json.dumps(value)))

"""What was found out about commits on the Hub, kept on disk: a commit never changes, so it need not be asked again."""

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

log = logging.getLogger(__name__)

FILE = "hf-metaprune-commons-2.sqlite"


class Memory:
    """JSON values by key, in one SQLite file that several threads and processes may use; without a disk, in memory."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()
        with self._lock, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL)")

    @classmethod
    @contextmanager
    def open(cls, cache_dir: str | Path | None = None) -> Iterator[Memory]:
        """The memory in a cache folder; beside that of huggingface_hub if left out."""
        from huggingface_hub import constants

        folder = Path(cache_dir or constants.HF_HOME).expanduser()  # not among the repos, where it would be in the way
        try:
            folder.mkdir(parents=True, exist_ok=True)
            memory = cls(sqlite3.connect(folder / FILE, timeout=10, check_same_thread=False))
        except (OSError, sqlite3.Error) as error:
            log.warning("what is found out about models is not kept: %s: %s", folder / FILE, error)
            memory = cls(sqlite3.connect(":memory:", check_same_thread=False))
        try:
            yield memory
        finally:
            memory._connection.close()

    def get(self, key: str) -> Any | None:
        """What is known, or None."""
        with self._lock, contextlib.suppress(sqlite3.Error, ValueError):
            found = self._connection.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
            return json.loads(found[0]) if found else None
        return None

    def put(self, key: str, value: Any) -> None:
        """Keep a value."""
        with self._lock, contextlib.suppress(sqlite3.Error), self._connection:
            self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, json.dumps(value)))

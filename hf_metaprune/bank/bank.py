"""`Bank`: a folder of pruned task models of one base model (format version 1)."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from ..errors import BankError, BaseMismatchError, FormatError, LockedError, MetaPruneError, OptionError, reason
from ..layout import (
    BANK_FILE,
    BASE_FOLDER,
    CONFIG,
    FORMAT_VERSION,
    INDEX_FILE,
    LOCKS_FOLDER,
    REJECTED_FOLDER,
    TASKS_FOLDER,
    TEMPORARY,
    WEIGHTS,
)
from ..masks import check_ratio
from ..models.base import BaseModel, sha256_file
from ..models.modeling import MetaPrunedForImageClassification
from ..models.saving import load_config, save_model
from ..storage import new_folder, read_json, storage_errors, write_bytes, write_json
from ..task import Task
from ..version import __version__
from .entry import INDEX_SCHEMA, Entry, check_facts, check_id, pack_mask

log = logging.getLogger(__name__)

LOCK_SECONDS = 60.0
MAX_INDEX_BYTES = 512 << 20  # a row has about 1 kB
SHARD_ABOVE = 5_000  # entries in one folder; the Hub asks for fewer than 10,000
KNOWN_KEYS = {"format_version", "hf_metaprune_version", "name", "base_model", "layers", "defaults"}


class Bank:
    """Entries by id, of one base model; reading is lazy, writing is atomic and safe between processes.

    Open one with `Bank.open`, make one with `Bank.create`. Iteration and ``bank[id]`` give `Entry`; only
    ``bank.json`` and ``index.parquet`` are read until an entry's weights or the base are asked for.
    """

    def __init__(self, root: Path, meta: Mapping[str, Any]) -> None:
        self.root = root
        self.meta = dict(meta)
        self._entries: dict[str, Entry] | None = None

    # ---- opening and making

    @classmethod
    def open(cls, path: str | Path) -> Bank:
        """A bank from its folder.

        Raises:
            FormatError: there is no bank, it is damaged, or of a newer format version.
        """
        root = Path(path).expanduser()
        if not root.exists():
            raise FormatError(f"there is no folder {root} (banks are opened from disk; from the Hub not yet)")
        if not (root / BANK_FILE).is_file():
            raise FormatError(f"{root} is not a bank: it has no {BANK_FILE}")
        meta = read_json(root / BANK_FILE)
        version = meta.get("format_version")
        if type(version) is not int or version < 1:
            raise FormatError(f"{root / BANK_FILE}: format_version {version!r} is not a version")
        if version > FORMAT_VERSION:
            raise FormatError(
                f"{root} has format version {version}; this hf_metaprune reads up to {FORMAT_VERSION}: "
                "upgrade with `pip install -U hf-metaprune`"
            )
        unknown = sorted(set(meta) - KNOWN_KEYS)
        if unknown:
            log.warning("%s: unknown keys ignored: %s", root / BANK_FILE, ", ".join(unknown))
        base, layers = meta.get("base_model"), meta.get("layers")
        if not isinstance(base, dict) or not re.fullmatch(r"[0-9a-f]{64}", str(base.get("sha256"))):
            raise FormatError(f"{root / BANK_FILE}: base_model has no sha256")
        if not isinstance(layers, dict) or not all(type(n) is int and 0 < n <= 1 << 20 for n in layers.values()):
            raise FormatError(f"{root / BANK_FILE}: layers must map each prunable layer to its number of units")
        defaults = meta.get("defaults", {})
        if not isinstance(defaults, dict) or not isinstance(defaults.get("ratio", 0.5), float):
            raise FormatError(f"{root / BANK_FILE}: defaults must be an object, its ratio a number")
        try:
            check_ratio(defaults.get("ratio", 0.5))
        except OptionError as error:
            raise FormatError(f"{root / BANK_FILE}: defaults: {error}") from error
        return cls(root, meta)

    @classmethod
    def create(
        cls, path: str | Path, base: BaseModel, *, name: str = "bank", defaults: Mapping[str, Any] | None = None
    ) -> Bank:
        """A new, empty bank with a copy of its base; an existing bank of the same base is opened.

        Raises:
            BaseMismatchError: a bank of another base is there already.
            StorageError: the folder cannot be written.
        """
        root = Path(path).expanduser()
        if (root / BANK_FILE).exists():
            bank = cls.open(root)
            if bank.base_sha256 != base.sha256:
                raise BaseMismatchError(f"{root} is a bank of another base ({bank.base_sha256[:12]}...)")
            return bank
        with storage_errors(root, "write"):
            root.mkdir(parents=True, exist_ok=True)
        meta = {
            "format_version": FORMAT_VERSION,
            "hf_metaprune_version": __version__,
            "name": name,
            "base_model": base.identity() | {"path": BASE_FOLDER},
            "layers": base.sizes,
            "defaults": dict(defaults or {}),
        }
        bank = cls(root, meta)
        with bank.lock():
            if (root / BANK_FILE).exists():  # another process was faster
                return cls.create(root, base)
            if not (root / BASE_FOLDER).exists():
                with new_folder(root / BASE_FOLDER) as work:
                    base.copy_files(work)
            if not (root / INDEX_FILE).exists():
                bank.write_index({})
            write_json(root / BANK_FILE, meta)
        return bank

    # ---- reading

    @property
    def name(self) -> str:
        """The bank's name."""
        return str(self.meta.get("name", self.root.name))

    @property
    def base_sha256(self) -> str:
        """sha256 of the base's weights."""
        return self.meta["base_model"]["sha256"]

    @property
    def sizes(self) -> dict[str, int]:
        """Unit counts of the base's prunable layers."""
        return self.meta["layers"]

    @property
    def default_ratio(self) -> float | None:
        """The pruning ratio of the entries, if the bank says so."""
        return self.meta.get("defaults", {}).get("ratio")

    def file(self, relative: str) -> Path:
        """A file or folder of the bank.

        Raises:
            FormatError: the path leads out of the bank.
        """
        path = self.root / relative
        if "\0" in relative or not path.resolve().is_relative_to(self.root.resolve()):
            raise FormatError(f"{relative[:100]!r} leads out of the bank")
        return path

    @property
    def base_bytes(self) -> int:
        """Size of the base's weights on disk: no sub-network in the same precision is larger."""
        path = self.file(str(self.meta["base_model"].get("path", BASE_FOLDER))) / WEIGHTS
        return path.stat().st_size if path.exists() else 0

    @cached_property
    def base(self) -> BaseModel:
        """The base model, loaded and checked on first use.

        Raises:
            BaseMismatchError: its weights are not those that ``bank.json`` names.
        """
        block = self.meta["base_model"]
        base = BaseModel.load(self.file(str(block.get("path", BASE_FOLDER))), repo_id=block.get("repo_id"))
        if base.sha256 != self.base_sha256:
            raise BaseMismatchError(
                f"{base.path}: its weights (sha256 {base.sha256[:12]}...) are not those of {BANK_FILE} "
                f"({self.base_sha256[:12]}...): they were changed, or the bank belongs to another base"
            )
        if base.sizes != self.sizes:
            raise FormatError(f"{self.root / BANK_FILE}: its layers are not those of the base")
        return base

    @property
    def entries(self) -> dict[str, Entry]:
        """All entries by id, sorted by id; read once, see `reload`."""
        if self._entries is None:
            self._entries = self._read_index()
        return self._entries

    def reload(self) -> None:
        """Read the index again when it is next needed."""
        self._entries = None

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self.entries

    def __getitem__(self, entry_id: str) -> Entry:
        try:
            return self.entries[entry_id]
        except KeyError:
            raise BankError(f"{self.root} has no entry {entry_id!r}") from None

    def __repr__(self) -> str:
        return f"Bank({self.name!r}, {len(self)} entries, base {self.meta['base_model'].get('architecture')})"

    def _read_index(self) -> dict[str, Entry]:
        path = self.root / INDEX_FILE
        try:
            if path.stat().st_size > MAX_INDEX_BYTES:
                raise FormatError(f"{path} has {path.stat().st_size} bytes, more than {MAX_INDEX_BYTES}")
            # Opened once: between two openings another process may replace it.
            with open(path, "rb") as handle, pq.ParquetFile(handle) as file:
                stored = file.schema_arrow
                types = {field.name: field.type for field in INDEX_SCHEMA}
                wrong = [name for name in stored.names if name in types and stored.field(name).type != types[name]]
                if wrong:
                    raise FormatError(f"{path}: column {wrong[0]} is of type {stored.field(wrong[0]).type}")
                rows = file.read(columns=[n for n in stored.names if n in types]).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise FormatError(
                f"{path} cannot be read: {reason(error)}; `hf-metaprune bank validate --repair` rebuilds it"
            ) from error
        entries = {}
        for row in rows:
            if not set(INDEX_SCHEMA.names) <= set(row):
                raise FormatError(f"{path}: columns {sorted(set(INDEX_SCHEMA.names) - set(row))} are missing")
            entry = Entry.from_row(self, row)
            if entry.id in entries:
                raise FormatError(f"{path}: entry {entry.id} is there twice")
            entries[entry.id] = entry
        return dict(sorted(entries.items()))

    # ---- writing

    @contextlib.contextmanager
    def lock(self, name: str = "bank", timeout: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold a lock between processes; the system frees it when a process dies.

        Raises:
            LockedError: another process holds it for longer than `timeout` seconds (-1: wait for ever).
        """
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
        table = pa.Table.from_pylist([e.row() for _, e in sorted(entries.items())], schema=INDEX_SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        write_bytes(self.root / INDEX_FILE, sink.getvalue().to_pybytes())

    def _update_index(self, changes: Mapping[str, Entry | None]) -> None:
        """Write entries into the index, or drop them (None), on top of what other processes wrote."""
        with self.lock():
            self.reload()
            entries: dict[str, Entry | None] = {**self.entries, **changes}
            kept = {k: e for k, e in entries.items() if e is not None}
            self.write_index(kept)
            self._entries = dict(sorted(kept.items()))

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
    ) -> Entry:
        """Store a model as an entry: its folder first, then its row in the index.

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
        path = self._new_path(entry_id)
        with new_folder(self.root / path, overwrite=True) as work:
            save_model(model, work, dtype)
        entry = self.describe(entry_id, path)
        self._update_index({entry_id: entry})
        return entry

    def _new_path(self, entry_id: str) -> str:
        import hashlib

        if len(self) < SHARD_ABOVE:
            return f"{TASKS_FOLDER}/{entry_id}"
        return f"{TASKS_FOLDER}/{hashlib.sha256(entry_id.encode()).hexdigest()[:2]}/{entry_id}"

    def describe(self, entry_id: str, path: str) -> Entry:
        """The entry that a folder's files make, as for the index.

        Raises:
            FormatError: its config is malformed. BaseMismatchError: it is of another base.
        """
        folder = self.file(path)
        config = load_config(folder)
        found = (config.base_model or {}).get("sha256")
        if found != self.base_sha256:
            raise BaseMismatchError(f"{folder} belongs to base {str(found)[:12]}..., not to the bank's")
        mask = config.mask()
        if mask.sizes != self.sizes:
            raise FormatError(f"{folder / CONFIG}: its masks do not fit the base's layers")
        labels = tuple(config.id2label[i] for i in range(config.num_labels))
        weights = folder / WEIGHTS
        with storage_errors(weights, "read"):
            size = weights.stat().st_size
            sha = sha256_file(weights)
        task = Task(labels, tuple(config.synsets or ()))
        metrics = dict(config.metrics or {})
        packed = pack_mask(mask)
        return Entry(self, check_id(entry_id), task, packed, config.method, config.ratio, metrics, path, size, sha)

    def remove(self, entry_id: str) -> None:
        """Take an entry out of the index, then delete its files."""
        import shutil

        folder = self[entry_id].folder
        self._update_index({entry_id: None})
        doomed = folder.with_name(f"{TEMPORARY}{folder.name}-removed")
        with storage_errors(folder, "delete"):
            folder.rename(doomed)  # at once, so that no later `recover` takes half of an entry for a whole one
            shutil.rmtree(doomed)

    def set_aside(self, path: str) -> None:
        """Move an entry's folder out of the way, into ``.rejected``: nothing is deleted, and nothing reads it."""
        folder, rejected = self.file(path), self.root / REJECTED_FOLDER
        with self.lock(), storage_errors(rejected, "write"):
            rejected.mkdir(exist_ok=True)
            names = (f"{folder.name}.{n}" for n in itertools.count(1))
            folder.rename(next(rejected / name for name in names if not (rejected / name).exists()))

    def folders(self) -> dict[str, str]:
        """Paths of all finished entry folders on disk by id, whether or not the index knows them."""
        found = {}
        for config in sorted((self.root / TASKS_FOLDER).glob("**/" + CONFIG)):
            folder = config.parent
            relative = folder.relative_to(self.root)
            if not any(part.startswith(TEMPORARY) for part in relative.parts) and (folder / WEIGHTS).exists():
                found[folder.name] = relative.as_posix()
        return found

    def recover(self) -> list[str]:
        """Put finished folders that the index lacks (a writer died in between) into it; their ids."""
        with self.lock("recover"):
            self.reload()
            missing = {i: p for i, p in self.folders().items() if i not in self.entries}
            found: dict[str, Entry] = {}
            for entry_id, path in missing.items():
                try:
                    found[entry_id] = self.describe(entry_id, path)
                except MetaPruneError as error:
                    log.warning("left out %s: %s", path, error)
            if found:
                self._update_index(found)
            return sorted(found)

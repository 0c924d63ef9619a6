"""Reading a bank: its entries, its base, and the files of both, wherever they lie."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import BankError, BaseMismatchError, FormatError
from ..files.layout import BANK_FILE, BASE_FOLDER, CONFIG, INDEX_FILE, PREPROCESSOR, SCORES, WEIGHTS
from ..files.storage import storage_errors
from ..hub.files import DOWNLOADS, Files, HubFiles
from ..models.base_model import BaseModel
from ..models.score_file import most_score_bytes
from ..text import counted
from .entry import Entry
from .index import read_table, table_rows

log = logging.getLogger(__name__)

SHOWN_ENTRIES = 10
"""Entries that a notebook shows."""
MAX_CONFIG_BYTES = 4 << 20
MAX_ENTRY_BYTES = 2 << 30
MAX_HEADER_BYTES = 2 << 20
MAX_BASE_BYTES = 16 << 30


def inside(folder: str, name: str) -> str:
    """The path of a file in a folder of a bank; the bank itself is ``.``."""
    return name if folder == "." else f"{folder}/{name}"


class BankReader:
    """Entries by id, of one base model, read lazily.

    Iteration and ``bank[id]`` give `Entry`; only ``bank.json`` and ``index.parquet`` are read until an entry's weights
    or the base are asked for.
    """

    def __init__(
        self,
        files: Files,
        meta: Mapping[str, Any],
        *,
        strict: bool = True,
        hub_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.hub_options = dict(hub_options or {})
        """How entries with a repo of their own are fetched: `token`, `cache_dir`, `local_files_only`."""
        self.files, self.meta, self.strict = files, dict(meta), strict
        self.left_out: dict[str, str] = {}
        """Why rows of the index, or entries, were not used, by id."""
        self.title = files.name
        """What messages call it: a path, or a Hub id."""
        build, add = "build entries first (hf-metaprune bank build)", "it was published empty (hf-metaprune bank add)"
        self.why_empty = build if files.writable else add
        """What to do if there are no entries."""
        self._entries: dict[str, Entry] | None = None
        self._others: dict[tuple[str, str], HubFiles] = {}

    @property
    def root(self) -> Path:
        """The bank's folder; of a bank on the Hub, that of its commit in the cache."""
        return self.files.root

    @property
    def name(self) -> str:
        """The bank's name."""
        return str(self.meta.get("name", self.files.name))

    def reference(self) -> dict[str, Any]:
        """What names it: on the Hub its repo and commit; of a folder only its name, never the path."""
        files = self.files
        on_hub = {"repo_id": files.repo_id, "revision": files.commit} if isinstance(files, HubFiles) else {}
        return {"name": self.name, **on_hub}

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
        """The pruning ratio that the bank names, else the one that most of its entries have; None if none says."""
        named = self.meta.get("defaults", {}).get("ratio")
        ratios = (
            Counter(entry.ratio for entry in self if 0 < (entry.ratio or 0) < 1) if named is None else Counter([named])
        )
        return ratios.most_common(1)[0][0] if ratios else None

    def entry_files(self, entry: Entry) -> Files:
        """Where an entry's files are: in the bank, or in a repo of its own."""
        if entry.repo_id is None or entry.revision is None:
            return self.files
        key = entry.repo_id, entry.revision
        if key not in self._others:
            self._others[key] = HubFiles(entry.repo_id, CONFIG, revision=entry.revision, **self.hub_options)
        return self._others[key]

    def fetch(self, entries: Iterable[Entry], progress: bool = False, force: bool = False) -> None:
        """Make the entries' files be on this machine; several are fetched at a time; anew, if `force` is set.

        Raises:
            HubError, FormatError: one cannot be had, or is larger than the index says.
        """
        groups: dict[tuple[str | None, str | None], list[Entry]] = {}
        for entry in entries:
            groups.setdefault((entry.repo_id, entry.revision), []).append(entry)

        def get(some: list[Entry]) -> None:
            wanted: dict[str, int] = {}
            for entry in some:
                limits = {CONFIG: MAX_CONFIG_BYTES, WEIGHTS: self._most_bytes(entry)}
                wanted |= {inside(entry.path, name): limit for name, limit in limits.items()}
            self.entry_files(some[0]).get(wanted, progress, force)

        if len(groups) == 1:
            get(*groups.values())
        elif groups:
            with ThreadPoolExecutor(min(DOWNLOADS, len(groups))) as pool:
                jobs = [pool.submit(get, some) for some in groups.values()]
            for job in jobs:
                job.result()  # what can be had is there; now the first that cannot

    def fetch_scores(self, entry: Entry, force: bool = False) -> None:
        """Make an entry's score mask be on this machine.

        Raises:
            HubError, FormatError: it cannot be had, or is larger than scores of the base can be.
        """
        self.entry_files(entry).get({inside(entry.path, SCORES): most_score_bytes(self.sizes)}, False, force)

    def _most_bytes(self, entry: Entry) -> int:
        """What an entry's weights may have: what the index says, if a slice of the base could be that large.

        Raises:
            FormatError: it could not.
        """
        most = MAX_ENTRY_BYTES
        if "base" in self.__dict__:  # it is loaded before any entry is fetched to vote
            head = (len(entry.labels) + 1) * (self.base.family.classifier(self.base.network).in_features + 1)
            most = MAX_HEADER_BYTES + 4 * (sum(t.numel() for t in self.base.state.values()) + head)
        if entry.size > most:
            raise FormatError(f"entry {entry.id}: its weights have {entry.size} bytes, more than any slice of the base")
        return entry.size

    @property
    def base_folder(self) -> Path:
        """The folder of the base model, fetched if the bank is on the Hub."""
        path = str(self.meta["base_model"].get("path", BASE_FOLDER))
        limits = {CONFIG: MAX_CONFIG_BYTES, WEIGHTS: MAX_BASE_BYTES}
        if self.meta["base_model"].get("library") == "transformers":
            limits[PREPROCESSOR] = MAX_CONFIG_BYTES
        self.files.get({inside(path, name): limit for name, limit in limits.items()})
        return self.files.path(path)

    @property
    def base_bytes(self) -> int:
        """Size of the base's weights: no sub-network in the same precision is larger."""
        weights = self.base_folder / WEIGHTS
        with storage_errors(weights, "read"):
            return weights.stat().st_size

    @cached_property
    def base(self) -> BaseModel:
        """The base model, loaded and checked on first use.

        Raises:
            BaseMismatchError: its weights are not those that ``bank.json`` names.
        """
        named = self.meta["base_model"]
        base = BaseModel.load(self.base_folder, repo_id=named.get("repo_id"), revision=named.get("revision"))
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
            self._entries = self._read_index(self.strict)
        return self._entries

    def use_entries(self, entries: Mapping[str, Entry]) -> None:
        """Have these entries instead of those of an index."""
        self._entries = dict(sorted(entries.items()))

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
            raise BankError(f"{self.files.name} has no entry {entry_id!r}") from None

    def _repr_html_(self) -> str:
        from ..drawing.cells import cell

        base, rows = self.meta["base_model"], []
        for entry, _ in zip(self, range(SHOWN_ENTRIES), strict=False):
            accuracy = entry.metrics.get("accuracy")
            shown = f"{accuracy:.1%}" if isinstance(accuracy, float) else ""
            rows.append([entry.id, ", ".join(entry.labels), str(entry.method), f"{entry.ratio}", shown])
        said = f"{counted(len(self), 'entry', 'entries')} of {base['architecture']} ({base['library']})."
        more = f"The first {len(rows)} of them" if len(self) > len(rows) else "All of them"
        header = ["entry", "classes", "method", "ratio", "accuracy"]
        return cell(f"Bank {self.name}", summary=[said], caption=more, header=header, rows=rows, numbers=2)

    def __repr__(self) -> str:
        return f"Bank({self.name!r}, {len(self)} entries, base {self.meta['base_model'].get('architecture')})"

    def _read_index(self, strict: bool) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        places: dict[tuple[str | None, str], str] = {}
        for number, row in enumerate(table_rows(read_table(self.root / INDEX_FILE))):
            try:
                entry = Entry.from_row(self, row)
                if entry.id in entries:
                    raise FormatError(f"entry {entry.id} is there twice")
                place = (entry.repo_id, entry.path)
                if place in places:
                    raise FormatError(f"entry {entry.id} lies where {places[place]} does")
                entries[entry.id], places[place] = entry, entry.id
            except FormatError as error:
                why = f"{self.files.name}: {INDEX_FILE}: {error}"
                if strict:
                    raise FormatError(why) from error
                self.left_out[f"row {number}"] = why
                log.warning("left out: %s", why)
        return dict(sorted(entries.items()))

"""Reading a bank: its entries, its base, and the files of both, on this machine or on the Hub."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import BankError, BaseMismatchError, FormatError, printable
from ..files.layout import BANK_FILE, BASE_FOLDER, CONFIG, INDEX_FILE, PREPROCESSOR, SCORES, TRUNK_FOLDER, WEIGHTS
from ..files.names import public_name
from ..files.storage import storage_errors
from ..hub.files import PARALLEL_DOWNLOADS, Files, HubFiles
from ..models.base_model import BaseModel
from ..models.score_file import max_score_bytes
from ..text import quantity
from ..trunk.files import load_trunk
from ..trunk.trunk import Trunk
from .entry import Entry
from .entry_checks import check_trunk
from .index import read_table, table_rows

log = logging.getLogger(__name__)

SHOWN_ENTRIES = 10
"""Most entries that a notebook shows."""
MAX_CONFIG_BYTES = 4 << 20
MAX_ENTRY_BYTES = 2 << 30
MAX_HEADER_BYTES = 2 << 20
MAX_BASE_BYTES = 16 << 30


def path_in_bank(folder: str, name: str) -> str:
    """Return the path of a file in a bank, whose own folder is ``.``."""
    return name if folder == "." else f"{folder}/{name}"


class BankReader:
    """Entries by id, of one base model, read lazily.

    Iteration and ``bank[id]`` give `Entry`. Only ``bank.json`` and ``index.parquet`` are read until the base or the
    weights of an entry are used.

    Args:
        files: where the bank's files are.
        meta: the values of ``bank.json``.
        strict: whether a malformed row of the index raises an error; otherwise it is skipped, see `skip_reasons`.
        hub_options: `token`, `cache_dir` and `local_files_only` for entries that have a repo of their own.
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
        """Options for downloads of entries that have a repo of their own: `token`, `cache_dir`, `local_files_only`."""
        self.files, self.meta, self.strict = files, dict(meta), strict
        self.skip_reasons: dict[str, str] = {}
        """Messages by the id of an entry, or the number of a row of the index, that was skipped."""
        self.title = files.name
        """The bank's name in messages: a path, or a Hub id."""
        build_hint, add_hint = (
            "build entries first (hf-metaprune bank build)",
            "it was published empty (hf-metaprune bank add)",
        )
        self.empty_hint = build_hint if files.writable else add_hint
        """The words for a bank without entries: the reason, or what to do."""
        self._entries: dict[str, Entry] | None = None
        self._repo_files: dict[tuple[str, str], HubFiles] = {}

    @property
    def root(self) -> Path:
        """The bank's folder; for a bank on the Hub, the folder of its commit in the cache."""
        return self.files.root

    @property
    def name(self) -> str:
        """The bank's name for people."""
        return str(self.meta.get("name") or public_name(self.files.name))

    def reference(self) -> dict[str, Any]:
        """Return what identifies the bank, for reports.

        Returns:
            `name`; for a bank on the Hub also `repo_id` and `revision` (a commit). A path is never in it.
        """
        files = self.files
        on_hub = {"repo_id": files.repo_id, "revision": files.commit} if isinstance(files, HubFiles) else {}
        return {"name": self.name, **on_hub}

    @property
    def base_sha256(self) -> str:
        """sha256 of the base's weights."""
        return self.meta["base_model"]["sha256"]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of units by prunable layer of the base."""
        return self.meta["layers"]

    @property
    def default_ratio(self) -> float | None:
        """The ratio that ``bank.json`` states, else the most frequent one of the entries; None if there is none."""
        stated_ratio = self.meta.get("defaults", {}).get("ratio")
        ratios = (
            Counter(entry.ratio for entry in self if 0 < (entry.ratio or 0) < 1)
            if stated_ratio is None
            else Counter([stated_ratio])
        )
        return ratios.most_common(1)[0][0] if ratios else None

    def entry_files(self, entry: Entry) -> Files:
        """Return the file store that holds an entry: that of the bank, or a repo of its own."""
        if entry.repo_id is None or entry.revision is None:
            return self.files
        key = entry.repo_id, entry.revision
        if key not in self._repo_files:
            self._repo_files[key] = HubFiles(entry.repo_id, CONFIG, revision=entry.revision, **self.hub_options)
        return self._repo_files[key]

    def fetch(self, entries: Iterable[Entry], progress: bool = False, force: bool = False) -> None:
        """Download the entries' files, several at a time, unless they are on this machine.

        Args:
            entries: the entries to download.
            progress: show a progress bar.
            force: whether files that are in the cache are downloaded again.

        Raises:
            HubError: a file cannot be downloaded.
            FormatError: a file is larger than the index says.
        """
        groups: dict[tuple[str | None, str | None], list[Entry]] = {}
        for entry in entries:
            groups.setdefault((entry.repo_id, entry.revision), []).append(entry)

        def fetch_group(group: list[Entry]) -> None:
            limits_by_path: dict[str, int] = {}
            for entry in group:
                limits = {CONFIG: MAX_CONFIG_BYTES, WEIGHTS: self._max_weight_bytes(entry)}
                limits_by_path |= {path_in_bank(entry.path, name): limit for name, limit in limits.items()}
            self.entry_files(group[0]).get(limits_by_path, progress, force)

        if len(groups) == 1:
            fetch_group(*groups.values())
        elif groups:
            with ThreadPoolExecutor(min(PARALLEL_DOWNLOADS, len(groups))) as pool:
                jobs = [pool.submit(fetch_group, group) for group in groups.values()]
            for job in jobs:
                job.result()  # all jobs have ended; the first error is raised here

    def fetch_scores(self, entry: Entry, force: bool = False) -> None:
        """Download an entry's score mask, unless it is on this machine.

        Raises:
            HubError: the file cannot be downloaded.
            FormatError: the file is larger than scores of the base can be.
        """
        self.entry_files(entry).get({path_in_bank(entry.path, SCORES): max_score_bytes(self.sizes)}, False, force)

    def _max_weight_bytes(self, entry: Entry) -> int:
        """Return the size of an entry's weights in bytes, as the index says.

        Raises:
            FormatError: no slice of the base can be that large.
        """
        max_bytes = MAX_ENTRY_BYTES
        if "base" in self.__dict__:  # `adapt` loads the base before it fetches an entry
            per_label, others = self._parameter_counts
            max_bytes = MAX_HEADER_BYTES + 4 * (others + (len(entry.labels) + 1) * per_label)
        if entry.size > max_bytes:
            raise FormatError(f"entry {entry.id}: its weights have {entry.size} bytes, more than any slice of the base")
        return entry.size

    @cached_property
    def _parameter_counts(self) -> tuple[int, int]:
        """The parameters of the base's classifier per label, and those of the whole base."""
        per_label = self.base.family.classifier(self.base.network).in_features + 1
        return per_label, sum(tensor.numel() for tensor in self.base.state.values())

    @property
    def base_folder(self) -> Path:
        """The folder of the base model; if the bank is on the Hub, it is downloaded first."""
        path = str(self.meta["base_model"].get("path", BASE_FOLDER))
        limits = {CONFIG: MAX_CONFIG_BYTES, WEIGHTS: MAX_BASE_BYTES}
        if self.meta["base_model"].get("library") == "transformers":
            limits[PREPROCESSOR] = MAX_CONFIG_BYTES
        self.files.get({path_in_bank(path, name): limit for name, limit in limits.items()})
        return self.files.path(path)

    @property
    def base_bytes(self) -> int:
        """Size of the base's weights in bytes: no sub-network in the same precision is larger."""
        weights = self.base_folder / WEIGHTS
        with storage_errors(weights, "read"):
            return weights.stat().st_size

    @cached_property
    def base(self) -> BaseModel:
        """The base model, loaded and checked on first use.

        Raises:
            BaseMismatchError: its weights are not those that ``bank.json`` names.
            FormatError: its layers are not those that ``bank.json`` names.
        """
        stated_base = self.meta["base_model"]
        base = BaseModel.load(
            self.base_folder, repo_id=stated_base.get("repo_id"), revision=stated_base.get("revision")
        )
        if base.sha256 != self.base_sha256:
            raise BaseMismatchError(
                f"{base.path}: its weights (sha256 {base.sha256[:12]}...) are not those of {BANK_FILE} "
                f"({self.base_sha256[:12]}...): they were changed, or the bank belongs to another base"
            )
        if base.sizes != self.sizes:
            raise FormatError(f"{self.root / BANK_FILE}: its layers are not those of the base")
        return base

    @cached_property
    def trunk(self) -> Trunk | None:
        """The bank's trunk, loaded and checked on first use; None if the bank has none.

        Raises:
            BaseMismatchError: it belongs to another base.
            FormatError: it is missing or damaged, or its weights cannot come from the base.
            HubError: it cannot be downloaded.
        """
        if "trunk" not in self.meta:
            return None
        max_bytes = MAX_HEADER_BYTES + 3 * self.base_bytes  # weights, orders, and statistics per ratio
        limits = {CONFIG: MAX_CONFIG_BYTES, WEIGHTS: max_bytes}
        self.files.get({path_in_bank(TRUNK_FOLDER, name): limit for name, limit in limits.items()})
        folder = self.files.path(TRUNK_FOLDER)
        trunk = load_trunk(folder, self.base)
        check_trunk(trunk, str(folder))
        return trunk

    @property
    def entries(self) -> dict[str, Entry]:
        """All entries by id, sorted by id; they are read once, see `reload`."""
        if self._entries is None:
            self._entries = self._read_index(self.strict)
        return self._entries

    def use_entries(self, entries: Mapping[str, Entry]) -> None:
        """Use these entries instead of those of an index."""
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
            accuracy_text = f"{accuracy:.1%}" if isinstance(accuracy, float) else ""
            rows.append([entry.id, ", ".join(entry.labels), str(entry.method), f"{entry.ratio}", accuracy_text])
        summary = f"{quantity(len(self), 'entry', 'entries')} of {base['architecture']} ({base['library']})."
        caption = f"The first {len(rows)} of them" if len(self) > len(rows) else "All of them"
        header = ["entry", "classes", "method", "ratio", "accuracy"]
        return cell(f"Bank {self.name}", summary=[summary], caption=caption, header=header, rows=rows, numbers=2)

    def __repr__(self) -> str:
        architecture = printable(str(self.meta["base_model"].get("architecture")))
        return f"Bank({self.name!r}, {len(self)} entries, base {architecture})"

    def _read_index(self, strict: bool) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        places: dict[tuple[str | None, str], str] = {}
        for number, row in enumerate(table_rows(read_table(self.root / INDEX_FILE))):
            try:
                entry = Entry.from_row(self, row)
                if entry.id in entries:
                    raise FormatError(f"entry {entry.id} is in the index twice")
                place = (entry.repo_id, entry.path)
                if place in places:
                    raise FormatError(f"entry {entry.id} has the same folder as entry {places[place]}")
                entries[entry.id], places[place] = entry, entry.id
            except FormatError as error:
                message = f"{self.files.name}: {INDEX_FILE}: {error}"
                if strict:
                    raise FormatError(message) from error
                self.skip_reasons[f"row {number}"] = message
                log.warning("left out: %s", message)
        return dict(sorted(entries.items()))

"""One entry of a bank, and its row in the index."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from ..data.task import Task
from ..errors import DataError, FormatError, reason
from ..files.layout import SCORES, WEIGHTS
from ..files.names import is_repo_id
from ..files.reading import check_regular, is_present, sha256_file
from ..files.storage import parse_json
from ..hub.files import Files, HubFiles, check_relative
from ..masks.mask import Mask
from ..masks.packing import unpack_mask
from ..masks.scores import ScoreMask
from ..models.base_model import BaseModel
from ..models.class_means import count_features, from_text
from ..models.configuration import MetaPrunedConfig
from ..models.modeling import MetaPrunedForImageClassification
from ..models.saving import load_model
from ..models.score_file import load_scores
from .entry_checks import (
    COMMIT_PATTERN,
    check_id,
    check_magnitudes,
    check_network,
    check_ratio_and_metrics,
    is_nearly_equal,
)
from .sketch import check_sketch

MAX_PATH = 400  # characters
MAX_SIZE = 1 << 63  # bytes; the index has them in a column of 64-bit integers
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")
PATH_PATTERN = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")


class EntrySource(Protocol):
    """The parts of a bank that its entries use."""

    files: Files
    """The files of the bank."""
    meta: dict[str, Any]
    """The values of ``bank.json``."""

    def __iter__(self) -> Iterator[Entry]:
        """Yield all entries, sorted by id."""

    def __len__(self) -> int:
        """Return the number of entries."""

    @property
    def base(self) -> BaseModel:
        """The base model, loaded and checked."""

    @property
    def base_sha256(self) -> str:
        """sha256 of the base's weights."""

    @property
    def sizes(self) -> dict[str, int]:
        """Number of units by prunable layer of the base."""

    def entry_files(self, entry: Entry) -> Files:
        """Return the file store that holds an entry: that of the bank, or a repo of its own."""

    def fetch(self, entries: Iterable[Entry], progress: bool = False, force: bool = False) -> None:
        """Download the entries' files, unless they are on this machine; `force` downloads them again."""

    def fetch_scores(self, entry: Entry, force: bool = False) -> None:
        """Download an entry's score mask, unless it is on this machine; `force` downloads it again."""


@dataclass(frozen=True)
class Entry:
    """A pruned task model of a bank, read lazily: the row is in memory, the weights are on disk or on the Hub.

    Example:
        ::

            bank = open_bank("demo-bank")
            entry = next(iter(bank))
            print(entry.labels, entry.metrics["accuracy"], entry.mask.ratio)
            model = entry.load_model()

        Checks of the entry's files, and the importance of its units::

            entry = next(iter(bank))
            entry.verify()
            print({name: scores.max() for name, scores in entry.score_mask().items()})
    """

    bank: EntrySource
    """The bank that the entry belongs to."""
    id: str
    """The entry's name in the bank, also the name of its folder."""
    task: Task
    """The labels of the classes and their synsets."""
    packed_mask: bytes
    """The kept units of every layer, see `Mask.pack`."""
    method: str | None
    """The pruning method that made the entry, such as ``ifp``."""
    ratio: float | None
    """Share of the units that were removed, in [0, 1]."""
    metrics: dict[str, Any]
    """Measurements from when the entry was made: ``accuracy``, ``test_images`` and others."""
    path: str
    """Folder of the entry's files, relative to the bank or to the entry's repo."""
    size: int
    """Size of ``model.safetensors`` in bytes."""
    sha256: str
    """Digest of ``model.safetensors``."""
    repo_id: str | None = None
    """The Hub repo of a single model; None for an entry whose files are in the bank."""
    revision: str | None = None
    """The commit of `repo_id`."""
    sketch: bytes | None = None
    """A small linear model that guesses the entry's outputs (bank/sketch.py)."""
    scores_sha256: str | None = None
    """Digest of ``mask_scores.safetensors``, if the entry has one."""
    class_means: bytes | None = None
    """The mean features of the base for each class, packed (models/class_means.py)."""

    def __post_init__(self) -> None:
        check_ratio_and_metrics(self.ratio, self.metrics)
        if self.sketch is not None:
            check_sketch(self.sketch, len(self.labels))
        if self.class_means is not None:
            count_features(self.class_means, len(self.labels))
        if self.scores_sha256 is not None and not SHA256_PATTERN.fullmatch(self.scores_sha256):
            raise FormatError(f"scores_sha256 {self.scores_sha256[:80]!r} is not a sha256 digest")

    @property
    def labels(self) -> tuple[str, ...]:
        """The class labels, in the order of the classifier's rows."""
        return self.task.labels

    @property
    def mask(self) -> Mask:
        """The kept units, in the base's numbering.

        Raises:
            FormatError: the packed mask does not fit the layers of the base.
        """
        return unpack_mask(self.packed_mask, self.bank.sizes)

    @property
    def folder(self) -> Path:
        """The folder of the entry's files; files on the Hub are downloaded first.

        Raises:
            HubError: the files cannot be downloaded.
            FormatError: the files are larger than the index says.
        """
        self.bank.fetch([self])
        return self.bank.entry_files(self).path(self.path)

    @property
    def root(self) -> Path:
        """A folder above the entry's files, below which no folder may be a link."""
        return self.bank.entry_files(self).root_of(self.path)

    @property
    def owner(self) -> str | None:
        """The owner of the entry's own repo in small letters; None for an entry whose files are in the bank."""
        return self.repo_id.partition("/")[0].lower() if self.repo_id else None

    def reference(self) -> dict[str, Any]:
        """Return the permanent identification of the entry, for reports.

        Returns:
            `id`, `labels` and `sha256`; for an entry on the Hub also `repo_id`, `revision` (a commit) and `path`.
        """
        identity = {"id": self.id, "labels": list(self.labels), "sha256": self.sha256}
        files = self.bank.entry_files(self)
        if not isinstance(files, HubFiles):
            return identity
        return identity | {"repo_id": files.repo_id, "revision": files.commit, "path": self.path}

    def load_model(self) -> MetaPrunedForImageClassification:
        """Load the entry's model.

        Returns:
            The model, with float32 weights and in eval mode.

        Raises:
            FormatError: the entry's files are missing or damaged, or differ from the index.
            HubError: the files cannot be downloaded.
        """
        model = load_model(self.folder, expected=self.bank.base_sha256)
        self.check_config(model.config)
        return model

    def check_config(self, config: MetaPrunedConfig) -> None:
        """Check that a config is that of the index or the card, by which the entry was ranked.

        Raises:
            FormatError: its network, masks, labels or another fact differ.
        """
        check_network(config, self.bank.meta["base_model"], f"entry {self.id}")
        if config.mask() != self.mask:
            raise FormatError(f"entry {self.id}: its config's masks are not those of the index; run bank validate")
        labels = tuple(config.id2label[i] for i in range(config.num_labels))
        facts: dict[str, tuple[Any, Any]] = {
            "labels or synsets": (self.task, Task(labels, tuple(config.synsets or ()))),
            "method": (self.method, config.method),
            "ratio": (self.ratio, config.ratio),
            "metrics": (self.metrics, dict(config.metrics or {})),
        }
        if config.class_means is not None:  # others are in the index only
            facts["class means"] = (self.class_means, from_text(config.class_means, config.num_labels))
        for fact, (index_value, config_value) in facts.items():
            if index_value != config_value and not is_nearly_equal(index_value, config_value):
                raise FormatError(f"entry {self.id}: its config's {fact} are not those of the index; run bank validate")

    def verify(self) -> None:
        """Check that the entry's files are those of the index, and that its model is sound.

        `MetaPruner.adapt` does this before it uses the weights.

        Raises:
            FormatError: a file is missing, altered or damaged.
            HubError: the files cannot be downloaded.
        """
        weights = self.folder / WEIGHTS
        if not is_present(weights):
            raise FormatError(f"entry {self.id}: {weights} is missing")
        if not self._has_index_digest(weights):
            self.bank.fetch([self], force=True)  # the cache may hold a file that was damaged on its way
            if not self._has_index_digest(weights):
                raise FormatError(f"entry {self.id}: {weights} was altered: its sha256 is not that of the index")
        model = self.load_model()
        check_magnitudes(model.network.state_dict(), self.bank.base)
        noise = torch.randn(2, *self.bank.base.preprocessing.input_size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            if not torch.isfinite(model(noise).logits).all():
                raise FormatError(f"entry {self.id}: its outputs are not finite")

    def _has_index_digest(self, weights: Path) -> bool:
        check_regular(weights)
        return weights.stat().st_size == self.size and sha256_file(weights) == self.sha256

    def open_weights(self) -> AbstractContextManager:
        """Open ``model.safetensors`` for reading tensor by tensor.

        Returns:
            A context manager, as `safetensors.safe_open` gives it.

        Raises:
            FormatError: the file is missing or damaged.
        """
        try:
            check_regular(self.folder / WEIGHTS)
            return safe_open(str(self.folder / WEIGHTS), framework="pt")
        except (OSError, SafetensorError) as error:
            raise FormatError(f"entry {self.id}: {self.folder / WEIGHTS} cannot be read: {reason(error)}") from error

    def score_mask(self) -> ScoreMask:
        """Return how much each unit of the base matters to the entry.

        Returns:
            The scores of ``mask_scores.safetensors``; without that file, 1 for the kept units and 0 for the others.

        Raises:
            FormatError: the file is missing or damaged, or is not that of the index.
            HubError: the file cannot be downloaded.
        """
        if self.scores_sha256 is None:
            return ScoreMask.from_mask(self.mask)
        for force in (False, True):  # the cache may hold a file that was damaged on its way
            self.bank.fetch_scores(self, force)
            path = self.folder / SCORES
            if is_present(path) and sha256_file(path) == self.scores_sha256:
                return load_scores(path, self.bank.sizes, self.bank.base_sha256)
        damage = "was altered: its sha256 is not that of the index" if is_present(path) else "is missing"
        raise FormatError(f"entry {self.id}: {path} {damage}")

    def row(self) -> dict[str, Any]:
        """Return the entry's row in ``index.parquet``, by column."""
        return {
            "id": self.id,
            "labels": list(self.task.labels),
            "synsets": list(self.task.synsets),
            "masks": self.packed_mask,
            "method": self.method,
            "ratio": self.ratio,
            "metrics": json.dumps(self.metrics, sort_keys=True),
            "path": self.path,
            "repo_id": self.repo_id,
            "revision": self.revision,
            "size": self.size,
            "sha256": self.sha256,
            "sketch": self.sketch,
            "scores_sha256": self.scores_sha256,
            "class_means": self.class_means,
        }

    @classmethod
    def from_row(cls, bank: EntrySource, row: Mapping[str, Any]) -> Entry:
        """Make an entry from a row of the index.

        Args:
            bank: the bank that the row belongs to.
            row: values by column, as `row` returns them.

        Raises:
            FormatError: a field is missing or malformed, or the path leads out of the bank.
        """
        try:
            metrics = parse_json(row["metrics"] or "{}")
            path, method, size = str(row["path"] or ""), row["method"], row["size"]
            check_relative(path)
            if not PATH_PATTERN.fullmatch(path) or len(path) > MAX_PATH:
                raise FormatError(f"its path {path[:100]!r} is too long, or has characters besides a-z A-Z 0-9 . _ - /")
            if not isinstance(method, str | None) or type(size) is not int or not 0 <= size < MAX_SIZE:
                raise FormatError("its method is not a text, or its size is not a number of bytes")
            if row["repo_id"] is not None and not (
                is_repo_id(row["repo_id"]) and COMMIT_PATTERN.fullmatch(row["revision"])
            ):
                raise FormatError("its repo_id is not owner/name, or its revision is not a commit")
            return cls(
                bank,
                check_id(row["id"]),
                Task(tuple(row["labels"]), tuple(row["synsets"])),
                bytes(row["masks"]),
                method,
                row["ratio"],
                metrics,
                path,
                size,
                str(row["sha256"]),
                row["repo_id"],
                row["revision"],
                row.get("sketch"),
                row.get("scores_sha256"),
                row.get("class_means"),
            )
        except (KeyError, TypeError, ValueError, OverflowError, DataError, FormatError) as error:
            raise FormatError(f"index row of entry {str(row.get('id'))[:80]!r}: {error}") from error

"""One entry of a bank, and its row in the index."""

from __future__ import annotations

import json
import math
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
from ..files.storage import parse_json
from ..hub.files import Files, HubFiles, check_relative
from ..masks.mask import Mask
from ..masks.packing import unpack_mask
from ..masks.scores import ScoreMask
from ..models.base_model import BaseModel, sha256_file
from ..models.configuration import MetaPrunedConfig
from ..models.modeling import MetaPrunedForImageClassification
from ..models.saving import load_model
from ..models.score_file import load_scores
from .sketch import check_sketch

OUTLIER, SMALL = 100.0, 1e-2
MAX_PATH = 400  # characters
MAX_METRICS = 1 << 16  # characters of JSON
MAX_SIZE = 1 << 63  # bytes, as a column of whole numbers can hold
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
PATH = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,95}")


def check_id(entry_id: str) -> str:
    """The id itself.

    Raises:
        FormatError: it could not be a folder's name everywhere.
    """
    if not isinstance(entry_id, str) or not ID_PATTERN.fullmatch(entry_id) or ".." in entry_id:
        raise FormatError(f"entry id {str(entry_id)[:100]!r}: use 1 to 96 of a-z 0-9 . _ - (not starting with . _ -)")
    return entry_id


def check_facts(ratio: Any, metrics: Any) -> None:
    """Check what an entry says of itself: its ratio, and its metrics, which must be a JSON object.

    Raises:
        FormatError: says what is wrong.
    """
    if ratio is not None and not (isinstance(ratio, (int, float)) and 0 <= ratio <= 1):
        raise FormatError(f"ratio {str(ratio)[:40]} must lie between 0 and 1")
    try:
        if not isinstance(metrics, dict) or len(json.dumps(metrics, allow_nan=False)) > MAX_METRICS:
            raise ValueError(f"must be an object of at most {MAX_METRICS} characters")
        json.dumps(metrics, ensure_ascii=False).encode()  # half of a surrogate pair cannot be written
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"metrics: {error}") from error


def check_network(config: MetaPrunedConfig, base: Mapping[str, Any], what: str) -> None:
    """Refuse a config that describes another network than the base, though it names the base's weights.

    Raises:
        FormatError: names the first part of the description that differs.
    """
    for key in ("library", "architecture", "model_args"):
        own, wanted = ((block or {}).get(key) for block in (config.base_model, base))
        if json.dumps(own, sort_keys=True) != json.dumps(wanted, sort_keys=True):
            raise FormatError(f"{what}: its {key} is not that of the base")


def check_magnitudes(model: MetaPrunedForImageClassification, base: BaseModel) -> None:
    """Refuse weights that no pruning and no training of the base can have led to.

    Raises:
        FormatError: the root mean square of a tensor is more than `OUTLIER` times that of the base's; the classifier,
            which is another one for each task, is not looked at.
    """
    head = f"{base.family.classifier_name(base.network)}."
    for name, tensor in model.network.state_dict().items():
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise FormatError(f"tensor {name} has variances below 0")
        full = base.state.get(name)
        if full is None or name.startswith(head) or not tensor.is_floating_point():
            continue
        found, usual = (t.double().square().mean().sqrt().item() for t in (tensor, full))
        if not found <= OUTLIER * max(usual, SMALL):
            raise FormatError(f"tensor {name} is far out: its root mean square is {found:.3g}, the base's {usual:.3g}")


def _nearly(one: Any, other: Any) -> bool:
    """Whether two ratios are the same, one of which another program wrote as a float32."""
    return isinstance(one, float) and isinstance(other, (int, float)) and math.isclose(one, other, rel_tol=1e-6)


class EntrySource(Protocol):
    """What an entry needs of the bank that it is read from."""

    files: Files
    meta: dict[str, Any]

    def __iter__(self) -> Iterator[Entry]:
        """All entries, by id."""

    def __len__(self) -> int:
        """How many entries there are."""

    @property
    def base(self) -> BaseModel:
        """The base model, loaded and checked."""

    @property
    def base_sha256(self) -> str:
        """sha256 of the base's weights."""

    @property
    def sizes(self) -> dict[str, int]:
        """Unit counts of the base's prunable layers."""

    def entry_files(self, entry: Entry) -> Files:
        """Where an entry's files are."""

    def fetch(self, entries: Iterable[Entry], progress: bool = False, force: bool = False) -> None:
        """Make the entries' files be on this machine."""

    def fetch_scores(self, entry: Entry, force: bool = False) -> None:
        """Make an entry's score mask be on this machine."""


@dataclass(frozen=True)
class Entry:
    """A pruned task model of a bank, read lazily: the row is in memory, the weights are on disk.

    `metrics` holds what was measured when it was made (``accuracy``, ``test_images``, ...).
    """

    bank: EntrySource
    id: str
    task: Task
    packed_mask: bytes
    method: str | None
    ratio: float | None
    metrics: dict[str, Any]
    path: str
    size: int
    sha256: str
    repo_id: str | None = None
    revision: str | None = None
    sketch: bytes | None = None
    """What its outputs are guessed from (bank/sketch.py)."""
    scores_sha256: str | None = None
    """Of its ``mask_scores.safetensors``, if it has one."""

    def __post_init__(self) -> None:
        check_facts(self.ratio, self.metrics)
        if self.sketch is not None:
            check_sketch(self.sketch, len(self.labels))
        if self.scores_sha256 is not None and not SHA256.fullmatch(self.scores_sha256):
            raise FormatError(f"scores_sha256 {self.scores_sha256[:80]!r} is no digest")

    @property
    def labels(self) -> tuple[str, ...]:
        """The class labels, in the order of the classifier's rows."""
        return self.task.labels

    @property
    def mask(self) -> Mask:
        """The units of the base this entry holds."""
        return unpack_mask(self.packed_mask, self.bank.sizes)

    @property
    def folder(self) -> Path:
        """Where its files are; from the Hub they are fetched first.

        Raises:
            HubError, FormatError: they cannot be had.
        """
        self.bank.fetch([self])
        return self.bank.entry_files(self).path(self.path)

    @property
    def owner(self) -> str | None:
        """The owner of a repo of its own; None for an entry whose files are in the bank."""
        return self.repo_id.partition("/")[0] if self.repo_id else None

    def reference(self) -> dict[str, Any]:
        """What names it for good: its id and digest; on the Hub also its repo, commit and path there."""
        named = {"id": self.id, "labels": list(self.labels), "sha256": self.sha256}
        where = self.bank.entry_files(self)
        if not isinstance(where, HubFiles):
            return named
        return named | {"repo_id": where.repo_id, "revision": where.commit, "path": self.path}

    def load_model(self) -> MetaPrunedForImageClassification:
        """The model, in float32 and eval mode.

        Raises:
            FormatError: its files are missing, damaged, or not what the index says.
        """
        model = load_model(self.folder, expected=self.bank.base_sha256)
        check_network(model.config, self.bank.meta["base_model"], f"entry {self.id}")
        if model.mask() != self.mask:
            raise FormatError(f"entry {self.id}: its config's masks are not those of the index; run bank validate")
        self._check_row(model.config)
        return model

    def _check_row(self, config: MetaPrunedConfig) -> None:
        """Refuse a config that says something else than the index, or the card, which has ranked the entry."""
        labels = tuple(config.id2label[i] for i in range(config.num_labels))
        said = {
            "labels or synsets": (self.task, Task(labels, tuple(config.synsets or ()))),
            "method": (self.method, config.method),
            "ratio": (self.ratio, config.ratio),
            "metrics": (self.metrics, dict(config.metrics or {})),
        }
        for what, (own, other) in said.items():
            if own != other and not _nearly(own, other):
                raise FormatError(f"entry {self.id}: its config's {what} are not those of the index; run bank validate")

    def verify(self) -> None:
        """Check that its files are whole, sound, and those of the index; done before its weights are used.

        Raises:
            FormatError: they are missing, altered or damaged.
        """
        weights = self.folder / WEIGHTS
        if not weights.is_file():
            raise FormatError(f"entry {self.id}: {weights} is missing")
        if not self._is(weights):
            self.bank.fetch([self], force=True)  # the cache of the Hub's client may hold what came wrong over the wire
            if not self._is(weights):
                raise FormatError(f"entry {self.id}: {weights} was altered: its sha256 is not that of the index")
        model = self.load_model()
        check_magnitudes(model, self.bank.base)
        noise = torch.randn(2, *self.bank.base.preprocessing.input_size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            if not torch.isfinite(model(noise).logits).all():
                raise FormatError(f"entry {self.id}: its outputs are not finite")

    def _is(self, weights: Path) -> bool:
        return weights.stat().st_size == self.size and sha256_file(weights) == self.sha256

    def open_weights(self) -> AbstractContextManager:
        """Its ``model.safetensors``, open for reading tensor by tensor.

        Raises:
            FormatError: it is missing or damaged.
        """
        try:
            return safe_open(str(self.folder / WEIGHTS), framework="pt")
        except (OSError, SafetensorError) as error:
            raise FormatError(f"entry {self.id}: {self.folder / WEIGHTS} cannot be read: {reason(error)}") from error

    def score_mask(self) -> ScoreMask:
        """How much each unit of the base matters to it; without scores, 1 for the kept units and 0 for the others.

        Raises:
            FormatError: its file is missing, damaged, or not that of the index. HubError: it cannot be had.
        """
        if self.scores_sha256 is None:
            return ScoreMask.from_mask(self.mask)
        for force in (False, True):  # the cache of the Hub's client may hold what came wrong over the wire
            self.bank.fetch_scores(self, force)
            path = self.folder / SCORES
            if path.is_file() and sha256_file(path) == self.scores_sha256:
                return load_scores(path, self.bank.sizes, self.bank.base_sha256)
        what = "was altered: its sha256 is not that of the index" if path.is_file() else "is missing"
        raise FormatError(f"entry {self.id}: {path} {what}")

    def row(self) -> dict[str, Any]:
        """Its row in ``index.parquet``."""
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
        }

    @classmethod
    def from_row(cls, bank: EntrySource, row: Mapping[str, Any]) -> Entry:
        """From a row of the index.

        Raises:
            FormatError: a field is missing or malformed, or the path leads out of the bank.
        """
        try:
            metrics = parse_json(row["metrics"] or "{}")
            path, method, size = str(row["path"] or ""), row["method"], row["size"]
            check_relative(path)
            if not PATH.fullmatch(path) or len(path) > MAX_PATH:
                raise FormatError(f"its path {path[:100]!r} has characters that no entry's has")
            if not isinstance(method, str | None) or type(size) is not int or not 0 <= size < MAX_SIZE:
                raise FormatError("its method is no text, or its size no number of bytes")
            if row["repo_id"] is not None and not (is_repo_id(row["repo_id"]) and COMMIT.fullmatch(row["revision"])):
                raise FormatError("it names another repo, but not by owner/name and commit")
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
            )
        except (KeyError, TypeError, ValueError, OverflowError, DataError, FormatError) as error:
            raise FormatError(f"index row of entry {str(row.get('id'))[:80]!r}: {error}") from error

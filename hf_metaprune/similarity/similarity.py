"""Ranking a bank's entries by how near they are to a task: the interface and the registry."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch

from ..bank.entry import Entry
from ..data.images import ImageSet
from ..data.task import Task
from ..errors import BankError, FormatError, HubError, HubTroubleError, HubUnreachableError, NotCachedError
from ..hub.client import Patience
from ..registry import Registry
from ..text import counted
from ..training.record import RunRecord

log = logging.getLogger(__name__)

SHOWN = 20
"""Entries that a note names."""


@dataclass(frozen=True)
class Neighbor:
    """An entry with its similarity to the target task; larger is nearer."""

    entry: Entry
    score: float


@dataclass
class Query:
    """The target: its labels, its training images, and how much may be spent on it."""

    task: Task
    images: ImageSet
    device: torch.device
    samples: int = 100
    """Images that forward passes are made of."""
    seed: int = 0
    progress: bool = False
    strict: bool = False
    """Whether an entry that cannot be used is an error; else it is left out, with a note."""
    record: RunRecord = field(default_factory=RunRecord)
    """A similarity adds its notes (labels that were not understood, say) and the FLOPs of its forward passes."""
    patience: Patience = field(default_factory=Patience)
    """With files that the Hub fails to give."""
    uncached: list[str] = field(default_factory=list)
    """Ids of entries that are not in the cache, where the Hub may not be asked."""

    def _note_uncached(self, entry_id: str) -> None:
        """One note for all entries that cannot be had without a network."""
        if self.uncached:
            self.record.notes.remove(self._uncached_note())
        self.uncached.append(entry_id)
        self.record.note(self._uncached_note())

    def _uncached_note(self) -> str:
        first, more = ", ".join(self.uncached[:SHOWN]), len(self.uncached) - SHOWN
        what = counted(len(self.uncached), "entry", "entries")
        return f"left out {what} not in the cache, for the Hub may not be asked: {first}" + (
            f" and {more} more" if more > 0 else ""
        )

    @cached_property
    def sample(self) -> ImageSet:
        """At most `samples` of the images, about equally many of each class."""
        return self.images.stratified(self.samples, self.seed)

    def fetch(self, entries: Sequence[Entry]) -> None:
        """Get the files of entries from the Hub, several at a time; `usable` tells later of those that cannot be had.

        Raises:
            HubUnreachableError: the Hub cannot be reached.
        """
        try:
            if entries:
                entries[0].bank.fetch(entries, self.progress)
        except (FormatError, HubError) as error:
            if isinstance(error, HubUnreachableError) and not isinstance(error, (HubTroubleError, NotCachedError)):
                raise
            log.info("%s", error)

    def usable(self, entry: Entry, check: Callable[[], object]) -> bool:
        """Whether `check` finds nothing wrong with an entry; what is wrong becomes a note.

        Raises:
            MetaPruneError: something is, and the query is strict.
        """
        try:
            check()
        except (FormatError, HubError) as error:
            if self.patience.ends(error) or self.strict:
                raise
            if isinstance(error, NotCachedError):
                self._note_uncached(entry.id)
                return False
            self.record.note(f"left out entry {entry.id}: {str(error).removeprefix(f'entry {entry.id}: ')}")
            return False
        return True


class Similarity(ABC):
    """A measure of how near an entry's task is to the target."""

    name: ClassVar[str]
    reference: ClassVar[str]

    @abstractmethod
    def scores(self, query: Query, entries: Sequence[Entry]) -> Mapping[str, float]:
        """A score for each entry by id; larger is nearer. An entry may be left out (with a note)."""

    def shortlist(self, query: Query, entries: Sequence[Entry]) -> list[Entry]:
        """The entries that are worth a score, without fetching any; all of them, unless a measure knows better.

        Asked again for those that are left when the shortlist does not have enough that can be used; never empty.
        """
        return list(entries)

    def weight(self, score: float) -> float:
        """How much a neighbor of that score counts when votes are weighted; above 0."""
        return max(score, 1e-6)

    def rank(self, query: Query, entries: Sequence[Entry]) -> list[Neighbor]:
        """Entries from the nearest to the farthest; equal scores are ordered by id.

        Raises:
            BankError: a score is not finite.
        """
        scores = self.scores(query, entries)
        unsure = [name for name, score in scores.items() if not math.isfinite(score)]
        if unsure:
            raise BankError(f"similarity {self.name!r} has no finite score for entry {unsure[0]}")
        found = [Neighbor(entry, float(scores[entry.id])) for entry in entries if entry.id in scores]
        return sorted(found, key=lambda n: (-n.score, n.entry.id))


SIMILARITIES: Registry[Similarity] = Registry("similarity", "hf_metaprune.similarities")
register_similarity, similarity_names, get_similarity = SIMILARITIES.register, SIMILARITIES.names, SIMILARITIES.get

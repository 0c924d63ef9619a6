"""Interface and registry of similarities, which rank a bank's entries by how near they are to a task."""

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
from ..text import quantity
from ..training.record import RunRecord

log = logging.getLogger(__name__)

MAX_NAMED = 20
"""Largest number of entries that one note names."""


@dataclass(frozen=True)
class Neighbor:
    """An entry with its similarity to the target task.

    Example:
        The neighbors that voted for a model::

            for neighbor in pruner.plan("photos").neighbors:
                print(neighbor.entry.labels, neighbor.score)
    """

    entry: Entry
    """The entry of the bank."""
    score: float
    """The similarity; larger is nearer. Its range depends on the similarity."""


@dataclass(frozen=True)
class Query:
    """The target task that entries are compared with, and the limits of the comparison.

    Example:
        A query about the training images of a `TaskData` called ``data``::

            query = Query(data.task, data.train, torch.device("cpu"), samples=50)
            neighbors = get_similarity("leep").rank(query, list(bank))
            print(neighbors[0].entry.labels, query.record.notes)

        How a similarity leaves out entries whose files are damaged::

            query = Query(data.task, data.train, torch.device("cpu"))
            query.fetch(list(bank))
            usable_entries = [entry for entry in bank if query.usable(entry, entry.verify)]
    """

    task: Task
    """The target's labels and synsets."""
    images: ImageSet
    """The target's training images."""
    device: torch.device
    """Where forward passes run."""
    samples: int = 100
    """Largest number of images that an entry's forward pass sees."""
    seed: int = 0
    """Seed of the choice of images."""
    progress: bool = False
    """Whether to show progress bars."""
    strict: bool = False
    """Whether an unusable entry raises an error. If not, it is left out, and a note says so."""
    record: RunRecord = field(default_factory=RunRecord)
    """Where a similarity adds its notes for the user (``record.note``) and its FLOPs (``record.retrieval_flops``)."""
    patience: Patience = field(default_factory=Patience)
    """When to stop asking a Hub that fails."""
    uncached_ids: list[str] = field(default_factory=list)
    """Ids of the entries that are left out because they are not in the cache and the Hub must not be asked."""

    def _note_uncached(self, entry_id: str) -> None:
        """Add an entry to the one note about all entries that are not in the cache."""
        if self.uncached_ids:
            self.record.notes.remove(self._uncached_note())
        self.uncached_ids.append(entry_id)
        self.record.note(self._uncached_note())

    def _uncached_note(self) -> str:
        id_list, more = ", ".join(self.uncached_ids[:MAX_NAMED]), len(self.uncached_ids) - MAX_NAMED
        entries = quantity(len(self.uncached_ids), "entry", "entries")
        return f"left out {entries} that the cache lacks, because the Hub must not be asked: {id_list}" + (
            f" and {more} more" if more > 0 else ""
        )

    @cached_property
    def sample(self) -> ImageSet:
        """At most `samples` of the images, about equally many per class."""
        return self.images.stratified(self.samples, self.seed)

    def fetch(self, entries: Sequence[Entry]) -> None:
        """Get the files of entries from the Hub, several at a time.

        Files that the Hub does not have, or fails to give, raise nothing here: `usable` reports them entry by entry.

        Args:
            entries: the entries whose files are needed.

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
        """Return whether an entry passes a check; if it does not, a note says why.

        Args:
            entry: the entry to check.
            check: called without arguments; it raises a `FormatError` or a `HubError` if the entry cannot be used.

        Returns:
            False if the entry must be left out.

        Raises:
            MetaPruneError: the check fails and the query is strict, or the Hub has failed too often.
        """
        try:
            check()
        except (FormatError, HubError) as error:
            if self.patience.should_stop(error) or self.strict:
                raise
            if isinstance(error, NotCachedError):
                self._note_uncached(entry.id)
                return False
            self.record.note(f"left out entry {entry.id}: {str(error).removeprefix(f'entry {entry.id}: ')}")
            return False
        return True


class Similarity(ABC):
    """A measure of how near an entry's task is to the target task.

    A subclass sets `name` and `reference` and implements `scores`. It is chosen by its name, after
    ``register_similarity(...)`` or through the entry point group ``hf_metaprune.similarities`` of its package.

    Example:
        A similarity that needs neither images nor weights::

            class SharedLabels(Similarity):
                name = "shared-labels"
                reference = "the share of the target's classes that an entry was made for"

                def scores(self, query, entries):
                    classes = len(query.task.labels)
                    return {e.id: sum(map(bool, query.task.matches(e.task))) / classes for e in entries}

            register_similarity(SharedLabels())
            pruner.adapt("photos", by="shared-labels")

        What the library asks a similarity, one call after the other::

            leep = get_similarity("leep")
            query = Query(data.task, data.train, torch.device("cpu"))
            neighbors = leep.rank(query, leep.shortlist(query, list(bank)))
            print([(neighbor.entry.id, leep.weight(neighbor.score)) for neighbor in neighbors])
    """

    name: ClassVar[str]
    """The word that chooses the similarity: the value of the option ``by``."""
    reference: ClassVar[str]
    """Where the similarity comes from, such as a paper."""

    @abstractmethod
    def scores(self, query: Query, entries: Sequence[Entry]) -> Mapping[str, float]:
        """Return a score for each entry.

        A similarity that makes forward passes uses ``query.sample``, calls ``query.fetch(entries)`` first, and adds its
        FLOPs to ``query.record.retrieval_flops``.

        Args:
            query: the target task.
            entries: the entries to score.

        Returns:
            A finite score by entry id; larger is nearer. An entry may be left out, with a note.
        """

    def shortlist(self, query: Query, entries: Sequence[Entry]) -> list[Entry]:
        """Return the entries that are worth a score, without fetching any; by default all of them.

        If too few of these entries can be used, the caller asks again, with the entries that the first answer lacked.

        Args:
            query: the target task.
            entries: the entries to choose from, at least one.

        Returns:
            Some of the entries, at least one.
        """
        return list(entries)

    def weight(self, score: float) -> float:
        """Return the weight of a neighbor's vote when votes are weighted.

        Args:
            score: the neighbor's score.

        Returns:
            A number above 0; by default the score.
        """
        return max(score, 1e-6)

    def rank(self, query: Query, entries: Sequence[Entry]) -> list[Neighbor]:
        """Return entries with their scores, nearest first; equal scores are ordered by id.

        Args:
            query: the target task.
            entries: the entries to rank. Those without a score are left out.

        Returns:
            Entries with their scores; equal scores are ordered by id.

        Raises:
            BankError: a score is not finite.
        """
        scores = self.scores(query, entries)
        not_finite = [name for name, score in scores.items() if not math.isfinite(score)]
        if not_finite:
            raise BankError(f"similarity {self.name!r} has no finite score for entry {not_finite[0]}")
        neighbors = [Neighbor(entry, float(scores[entry.id])) for entry in entries if entry.id in scores]
        return sorted(neighbors, key=lambda n: (-n.score, n.entry.id))


SIMILARITIES: Registry[Similarity] = Registry("similarity", "hf_metaprune.similarities")
"""All similarities by name, with those of installed plugins."""
register_similarity, similarity_names, get_similarity = SIMILARITIES.register, SIMILARITIES.names, SIMILARITIES.get

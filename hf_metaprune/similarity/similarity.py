"""Ranking a bank's entries by how near they are to a task: the interface and the registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import ClassVar

import torch

from ..bank.entry import Entry
from ..data import ImageSet
from ..errors import OptionError
from ..task import Task

ENTRY_POINT_GROUP = "hf_metaprune.similarities"


@dataclass(frozen=True)
class Neighbour:
    """An entry with its similarity to the target task; larger is nearer."""

    entry: Entry
    score: float


@dataclass
class Query:
    """The target: its labels, its training images, and how much may be spent on it."""

    task: Task
    images: ImageSet
    device: torch.device
    samples: int = 200
    seed: int = 0
    progress: bool = False
    notes: list[str] = field(default_factory=list)
    """What the user should know, such as labels that were not understood; a similarity appends here."""


class Similarity(ABC):
    """A measure of how near an entry's task is to the target."""

    name: ClassVar[str]
    reference: ClassVar[str]

    @abstractmethod
    def scores(self, query: Query, entries: Sequence[Entry]) -> Mapping[str, float]:
        """A score for each entry by id; larger is nearer. An entry may be left out (with a note)."""

    def weight(self, score: float) -> float:
        """How much a neighbour of that score counts when votes are weighted; above 0."""
        return max(score, 1e-6)

    def rank(self, query: Query, entries: Sequence[Entry]) -> list[Neighbour]:
        """Entries from the nearest to the farthest; equal scores are ordered by id."""
        scores = self.scores(query, entries)
        found = [Neighbour(entry, float(scores[entry.id])) for entry in entries if entry.id in scores]
        return sorted(found, key=lambda n: (-n.score, n.entry.id))


_SIMILARITIES: dict[str, Similarity] = {}


def register_similarity(similarity: Similarity) -> Similarity:
    """Make a similarity known by its name; a second one of the same name is refused."""
    if similarity.name in _SIMILARITIES:
        raise OptionError(f"a similarity named {similarity.name!r} is registered already")
    _SIMILARITIES[similarity.name] = similarity
    return similarity


def similarity_names() -> list[str]:
    """Names of all similarities, those of plugins included (entry point group ``hf_metaprune.similarities``)."""
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name not in _SIMILARITIES:
            register_similarity(point.load()())
    return sorted(_SIMILARITIES)


def get_similarity(name: str) -> Similarity:
    """The similarity of that name.

    Raises:
        OptionError: there is none; the message lists them.
    """
    if name not in similarity_names():
        raise OptionError(f"there is no similarity {name!r}; there are: {', '.join(similarity_names())}")
    return _SIMILARITIES[name]

"""LEEP helped by labels: classes that an entry knows by name count for it, where images are too few to tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..bank.entry import Entry
from .leep import Leep
from .similarity import Query, register_similarity


class LeepWithLabels(Leep):
    """LEEP plus the share of the target's classes that the entry was made for (same synset, or same label).

    LEEP from a few images of each class is noisy, and what an entry has learnt of the very classes matters more
    than anything else about it: a known class is worth as much as a mean likelihood larger by exp(1 / classes).
    For a task of new classes it is LEEP alone.
    """

    name = "leep+labels"
    reference = f"{Leep.reference}, and docs/findings.md"

    def scores(self, query: Query, entries: Sequence[Entry]) -> Mapping[str, float]:
        found = super().scores(query, entries)
        return {entry.id: found[entry.id] + known_share(query, entry) for entry in entries}


def known_share(query: Query, entry: Entry) -> float:
    """The share of the target's classes that the entry was made for, in [0, 1]."""
    same = query.task.matches(entry.task)
    return sum(map(bool, same)) / len(same)


register_similarity(LeepWithLabels())

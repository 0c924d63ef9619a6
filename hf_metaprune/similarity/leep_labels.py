"""LEEP helped by labels: classes that an entry knows by name count for it, where images are too few to tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..bank.entry import Entry
from .leep import Leep
from .similarity import Query, register_similarity

SHARE = 0.5  # in nats; 0.25 to 1 choose about equally well (docs/findings/similarity.md)


class LeepWithLabels(Leep):
    """LEEP plus half the share of the target's classes that the entry was made for (same synset, or same label).

    LEEP from a few images of each class is noisy, and an entry that has learnt the very classes is worth more than one
    that happens to fit these images. For a task of new classes it is LEEP alone.
    """

    name = "leep+labels"
    reference = f"{Leep.reference}, and docs/findings/similarity.md"

    def scores(self, query: Query, entries: Sequence[Entry]) -> Mapping[str, float]:
        found = super().scores(query, entries)
        return {e.id: found[e.id] + SHARE * known_share(query, e) for e in entries if e.id in found}


def known_share(query: Query, entry: Entry) -> float:
    """The share of the target's classes that the entry was made for, in [0, 1]."""
    same = query.task.matches(entry.task)
    return sum(map(bool, same)) / len(same)


register_similarity(LeepWithLabels())

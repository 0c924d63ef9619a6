"""LEEP plus a bonus for shared labels, because LEEP alone is noisy when there are few images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..bank.entry import Entry
from .leep import Leep
from .similarity import Query, register_similarity

LABEL_WEIGHT = 0.5
"""Bonus in nats for an entry that has all of the target's classes.

Values from 0.25 to 1 choose about equally well (docs/findings/similarity.md).
"""


class LeepWithLabels(Leep):
    """LEEP plus `LABEL_WEIGHT` times the share of the target's classes that the entry was made for.

    A class is shared if it has the same synset or the same label. From few images per class LEEP is noisy: an entry
    that has learned these classes is worth more than one that happens to fit these images. If no class is shared, the
    score is that of LEEP.
    """

    name = "leep+labels"
    reference = f"{Leep.reference}, and docs/findings/similarity.md"

    def scores(self, query: Query, entries: Sequence[Entry]) -> Mapping[str, float]:
        leep_scores = super().scores(query, entries)
        return {e.id: leep_scores[e.id] + LABEL_WEIGHT * known_share(query, e) for e in entries if e.id in leep_scores}


def known_share(query: Query, entry: Entry) -> float:
    """Return the share of the target's classes that the entry was made for, in [0, 1]."""
    matches = query.task.matches(entry.task)
    return sum(map(bool, matches)) / len(matches)


register_similarity(LeepWithLabels())

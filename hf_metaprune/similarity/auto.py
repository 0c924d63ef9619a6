"""Two stages for large banks: the index alone shortlists entries, LEEP decides among those."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from ..bank.entry import Entry
from ..bank.sketch import BaseFeatures, guess_probabilities, unpack_sketch
from ..errors import WordNetError
from .leep import leep
from .leep_labels import SHARE, LeepWithLabels, known_share
from .similarity import Query, get_similarity, register_similarity

SMALL = 25
"""Entries that are all looked at, where they have sketches: a shortlist and the base's pass would cost as much."""
SMALL_BLIND = 100
"""The same of entries without a sketch."""
PLACES = 0.1
"""Share of the entries that LEEP looks at, where they have sketches (docs/findings/shortlist.md)."""
PLACES_BLIND = 0.3
"""The same of entries without a sketch, which WordNet shortlists, and much less well."""
FEWEST = 10
"""Entries on a shortlist, if there are as many."""


class Auto(LeepWithLabels):
    """LEEP with labels of a shortlist: by sketches (bank/sketch.py), by WordNet for entries that have none.

    In a small bank, and where there is neither a sketch nor WordNet, it looks at all of them.
    """

    name = "auto"
    reference = "docs/explanation/methods.md"

    def shortlist(self, query: Query, entries: Sequence[Entry]) -> list[Entry]:
        sketched = [e for e in entries if e.sketch is not None]
        blind = [e for e in entries if e.sketch is None]
        return self._by_sketch(query, sketched) + self._by_wordnet(query, blind) or list(entries)

    def _by_sketch(self, query: Query, entries: list[Entry]) -> list[Entry]:
        return entries if len(entries) <= SMALL else best(entries, guess_scores(query, entries), PLACES)

    def _by_wordnet(self, query: Query, entries: list[Entry]) -> list[Entry]:
        if len(entries) <= SMALL_BLIND:
            return entries
        try:
            scores = get_similarity("wordnet").scores(query, entries)
        except WordNetError as error:
            query.record.note(f"all {len(entries)} entries without a sketch are looked at: {error}")
            return entries
        return best(entries, scores, PLACES_BLIND)


def guess_scores(query: Query, entries: Sequence[Entry]) -> dict[str, float]:
    """LEEP (with labels) as the sketches guess it, from one forward pass of the base; a bad sketch has no score."""
    images, features = query.sample, BaseFeatures(entries[0].bank.base, query.device)
    x, targets = features(images), images.targets.numpy()
    query.record.retrieval_flops += features.flops(images)
    found: dict[str, float] = {}

    def score(entry: Entry) -> None:
        assert entry.sketch is not None
        guess = guess_probabilities(x, unpack_sketch(entry.sketch, len(entry.labels)))
        found[entry.id] = leep(guess, targets) + SHARE * known_share(query, entry)

    for entry in entries:
        query.usable(entry, partial(score, entry))
    return found


def best(entries: Sequence[Entry], scores: Mapping[str, float], share: float) -> list[Entry]:
    """That share of the entries, and at least `FEWEST`, which have the largest scores; equal ones are ordered by id."""
    scored = sorted((e for e in entries if e.id in scores), key=lambda e: (-scores[e.id], e.id))
    return scored[: max(FEWEST, math.ceil(share * len(entries)))]


register_similarity(Auto())

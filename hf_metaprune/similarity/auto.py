"""Similarity in two stages for large banks: the index alone shortlists entries, then LEEP ranks the shortlist."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from ..bank.entry import Entry
from ..bank.sketch import BaseFeatures, guess_probabilities, unpack_sketch
from ..errors import WordNetError
from .leep import leep
from .leep_labels import LABEL_WEIGHT, LeepWithLabels, known_share
from .similarity import Query, get_similarity, register_similarity

SMALL_BANK = 25
"""Number of entries with sketches up to which all are ranked: a shortlist of so few would cost as much as it saves."""
SMALL_BANK_UNSKETCHED = 100
"""Number of entries without a sketch up to which all are ranked."""
SHORTLIST_SHARE = 0.1
"""Share of the entries with sketches that LEEP ranks (docs/findings/shortlist.md)."""
SHORTLIST_SHARE_UNSKETCHED = 0.3
"""Share of the entries without a sketch that LEEP ranks; it is larger because WordNet's shortlist is less exact."""
MIN_SHORTLIST = 10
"""Smallest number of entries on a shortlist, if the bank has as many."""


class Auto(LeepWithLabels):
    """LEEP with labels on a shortlist of the entries.

    Sketches in the bank's index (see ``bank/sketch.py``) shortlist the entries that have one, and WordNet shortlists
    the others. All entries are ranked in a small bank, and all entries without a sketch if WordNet is not installed.
    """

    name = "auto"
    reference = "docs/explanation/methods.md"

    def shortlist(self, query: Query, entries: Sequence[Entry]) -> list[Entry]:
        sketched_entries = [e for e in entries if e.sketch is not None]
        blind = [e for e in entries if e.sketch is None]
        return self._by_sketch(query, sketched_entries) + self._by_wordnet(query, blind) or list(entries)

    def _by_sketch(self, query: Query, entries: list[Entry]) -> list[Entry]:
        return (
            entries
            if len(entries) <= SMALL_BANK
            else top_scoring(entries, guess_scores(query, entries), SHORTLIST_SHARE)
        )

    def _by_wordnet(self, query: Query, entries: list[Entry]) -> list[Entry]:
        if len(entries) <= SMALL_BANK_UNSKETCHED:
            return entries
        try:
            scores = get_similarity("wordnet").scores(query, entries)
        except WordNetError as error:
            query.record.note(f"all {len(entries)} entries without a sketch are ranked, without a shortlist: {error}")
            return entries
        return top_scoring(entries, scores, SHORTLIST_SHARE_UNSKETCHED)


def guess_scores(query: Query, entries: Sequence[Entry]) -> dict[str, float]:
    """Estimate the score of `LeepWithLabels` for each entry from its sketch.

    The estimate needs one forward pass of the base on the images, and none of the entries.

    Args:
        query: the target task; its record receives the FLOPs of the pass.
        entries: at least one entry, each with a sketch.

    Returns:
        A score by entry id. Entries whose sketch cannot be read have none; a note says so.
    """
    images, base_features = query.sample, BaseFeatures(entries[0].bank.base, query.device)
    features, targets = base_features(images), images.targets.numpy()
    query.record.retrieval_flops += base_features.flops(images)
    scores: dict[str, float] = {}

    def score(entry: Entry) -> None:
        assert entry.sketch is not None
        probabilities = guess_probabilities(features, unpack_sketch(entry.sketch, len(entry.labels)))
        scores[entry.id] = leep(probabilities, targets) + LABEL_WEIGHT * known_share(query, entry)

    for entry in entries:
        query.usable(entry, partial(score, entry))
    return scores


def top_scoring(entries: Sequence[Entry], scores: Mapping[str, float], share: float) -> list[Entry]:
    """Return the entries with the largest scores, largest first; equal scores are ordered by id.

    Args:
        entries: the entries to choose from.
        scores: a score by entry id; entries without one are left out.
        share: share of the entries to return; at least `MIN_SHORTLIST` are returned, if so many have a score.
    """
    scored_entries = sorted((e for e in entries if e.id in scores), key=lambda e: (-scores[e.id], e.id))
    return scored_entries[: max(MIN_SHORTLIST, math.ceil(share * len(entries)))]


register_similarity(Auto())

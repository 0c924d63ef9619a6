"""Retrieval: the choice of the entries that vote, by a similarity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ..bank.bank import Bank
from ..bank.entry import Entry
from ..config import AdaptOptions
from ..errors import BankError
from ..similarity import Neighbor, Query, Similarity, get_similarity
from ..text import quantity
from .recipes import SIMILARITY
from .voters import Voters

REMEDY = "`hf-metaprune bank validate` says what is wrong with a bank's entries, and --repair sets the bad ones aside"
"""The end of the message about a bank with too few entries that can be used."""


def find_voters(bank: Bank, query: Query, options: AdaptOptions) -> Voters:
    """Find the entries nearest to a task, which will vote.

    An entry that is damaged or differs from the index is left out, with a note. An owner of single models has at most
    ``votes_per_owner`` of the votes.

    Args:
        bank: the bank.
        query: the task; its record receives notes and FLOPs.
        options: the similarity (``by``) and the number of neighbors (None: all entries).

    Returns:
        The neighbors, and the other entries that have a score.

    Raises:
        BankError: fewer entries can be used than the options ask for.
        MetaPruneError: an entry is damaged, and the query is strict.
    """
    n_voters = options.neighbors or len(bank)
    max_per_owner = votes_per_owner(options, n_voters, list(bank))
    neighbors: list[Neighbor] = []
    runners_up: list[Neighbor] = []
    owners: Counter[str | None] = Counter()
    is_capped = False
    similarity = get_similarity(options.by or SIMILARITY)
    for ranking in _rankings(similarity, query, list(bank)):
        for neighbor in ranking:
            entry = neighbor.entry
            has_all_votes = entry.owner is not None and owners[entry.owner] >= max_per_owner
            if len(neighbors) == n_voters or has_all_votes:
                is_capped = is_capped or len(neighbors) < n_voters
                runners_up.append(neighbor)
            elif _is_usable(entry, query, options):
                owners[entry.owner] += 1
                neighbors.append(neighbor)
        if len(neighbors) == n_voters:
            break
    if neighbors and is_capped and len(neighbors) < n_voters:
        query.record.note(
            f"{len(neighbors)} neighbors vote, not {n_voters}: one owner has at most {max_per_owner} of the votes "
            "(votes_per_owner)"
        )
    elif not neighbors or (options.neighbors and len(neighbors) < options.neighbors):
        why = "; ".join(query.record.notes[-3:])
        all_entries = quantity(len(bank), "entry", "entries")
        raise BankError(f"only {len(neighbors)} of {all_entries} of {bank.title} can be used: {why}; {REMEDY}")
    vote_weights = tuple(similarity.weight(n.score) for n in neighbors) if options.weighted else None
    return Voters(tuple(neighbors), tuple(runners_up), vote_weights)


def _is_usable(entry: Entry, query: Query, options: AdaptOptions) -> bool:
    """Return whether an entry's files are those of the index, and have what the strategy needs; a note says why not."""
    return query.usable(entry, entry.verify) and (options.strategy != "smsp" or query.usable(entry, entry.score_mask))


def _rankings(similarity: Similarity, query: Query, entries: list[Entry]) -> Iterator[Sequence[Neighbor]]:
    """Yield the ranking of the similarity's shortlist, then that of a shortlist of the remaining entries, and so on."""
    while entries:
        shortlist = similarity.shortlist(query, entries)
        yield similarity.rank(query, shortlist)
        ranked_ids = {entry.id for entry in shortlist}
        entries = [entry for entry in entries if entry.id not in ranked_ids]


def votes_per_owner(options: AdaptOptions, neighbors: int, entries: Sequence[Entry]) -> int:
    """Return how many of the neighbors may be single models of one owner.

    By default these are fewer than half, but at least one, so that no owner decides a vote alone. If all entries have
    the same owner, there is no limit.

    Args:
        options: the user's limit, if there is one.
        neighbors: number of neighbors.
        entries: the bank's entries.
    """
    if options.votes_per_owner is None and len({entry.owner for entry in entries}) == 1:
        return neighbors
    return options.votes_per_owner or max(1, (neighbors - 1) // 2)

"""Retrieval: the choice of the entries that vote, by a similarity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

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
    ``votes_per_owner`` of the votes. If the others have too few models for that, fewer entries vote, with a note.

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
    limit = votes_per_owner(options, list(bank))
    ranked_neighbors: list[Neighbor] = []
    usable_neighbors: list[Neighbor] = []
    owners: Counter[str | None] = Counter()
    is_capped = False
    similarity = get_similarity(options.by or SIMILARITY)
    for ranking in _rankings(similarity, query, list(bank)):
        for neighbor in ranking:
            owner = neighbor.entry.owner
            if len(usable_neighbors) == n_voters or (owner is not None and owners[owner] >= limit(n_voters)):
                is_capped = is_capped or len(usable_neighbors) < n_voters
                ranked_neighbors.append(neighbor)
            elif _is_usable(neighbor.entry, query, options):
                owners[owner] += 1
                usable_neighbors.append(neighbor)
                ranked_neighbors.append(neighbor)
        if len(usable_neighbors) == n_voters:
            break
    if not usable_neighbors or (not is_capped and options.neighbors and len(usable_neighbors) < options.neighbors):
        why = "; ".join(query.record.notes[-3:])
        all_entries = quantity(len(bank), "entry", "entries")
        raise BankError(f"only {len(usable_neighbors)} of {all_entries} of {bank.title} can be used: {why}; {REMEDY}")
    voters = usable_neighbors if len(usable_neighbors) == n_voters else _most_within_limit(usable_neighbors, limit)
    has_one_owner = len({entry.owner for entry in bank}) == 1
    _note_owners(voters, n_voters if is_capped else len(usable_neighbors), limit, has_one_owner, query)
    vote_weights = tuple(similarity.weight(n.score) for n in voters) if options.weighted else None
    voter_ids = {neighbor.entry.id for neighbor in voters}
    runners_up = tuple(neighbor for neighbor in ranked_neighbors if neighbor.entry.id not in voter_ids)
    return Voters(tuple(voters), runners_up, vote_weights)


def _most_within_limit(neighbors: Sequence[Neighbor], limit: Callable[[int], int]) -> list[Neighbor]:
    """Return the most neighbors, nearest first, of which no owner has more than the limit for that many voters.

    Args:
        neighbors: neighbors that can be used, at least one.
        limit: the most votes of one owner, given the number of voters.
    """
    counts = Counter(neighbor.entry.owner for neighbor in neighbors)
    unlimited = counts.pop(None, 0)
    n_voters = next(
        n
        for n in range(len(neighbors), 0, -1)
        if n == 1 or unlimited + sum(min(count, limit(n)) for count in counts.values()) >= n
    )
    owners: Counter[str | None] = Counter()
    voters: list[Neighbor] = []
    for neighbor in neighbors:
        owner = neighbor.entry.owner
        if len(voters) < n_voters and (owner is None or owners[owner] < limit(n_voters)):
            owners[owner] += 1
            voters.append(neighbor)
    return voters


def _note_owners(
    voters: Sequence[Neighbor], wanted: int, limit: Callable[[int], int], has_one_owner: bool, query: Query
) -> None:
    """Note that fewer entries vote because of their owners, or that all of them, or of the bank, are of one owner."""
    if len(voters) < wanted:
        vote = "neighbor votes" if len(voters) == 1 else "neighbors vote"
        query.record.note(
            f"{len(voters)} {vote}, not {wanted}: one owner has at most {limit(len(voters))} of the votes "
            "(votes_per_owner)"
        )
    owners = {neighbor.entry.owner for neighbor in voters}
    if (len(voters) > 1 or has_one_owner) and len(owners) == 1 and None not in owners:
        whose = f"all {len(voters)} neighbors are models of" if len(voters) > 1 else "all models are of"
        query.record.note(f"{whose} {owners.pop()}, who decides the vote alone")


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


def votes_per_owner(options: AdaptOptions, entries: Sequence[Entry]) -> Callable[[int], int]:
    """Return the most votes that single models of one owner may have, as a function of the number of voters.

    By default an owner has fewer than half of the votes, or one, so that no owner decides a vote alone. If all entries
    have the same owner, there is no limit.

    Args:
        options: the user's limit, if there is one.
        entries: the bank's entries.
    """
    if options.votes_per_owner is None and len({entry.owner for entry in entries}) == 1:
        return lambda voters: voters
    return lambda voters: options.votes_per_owner or max(1, (voters - 1) // 2)

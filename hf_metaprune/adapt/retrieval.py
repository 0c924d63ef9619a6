"""From a bank and a similarity to the entries that vote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ..bank.bank import Bank
from ..bank.entry import Entry
from ..config import AdaptOptions
from ..errors import BankError
from ..similarity import Neighbor, Query, Similarity, get_similarity
from ..text import counted
from .recipes import SIMILARITY
from .voters import Voters

REMEDY = "`hf-metaprune bank validate` tells what is wrong with a bank's entries, and --repair sets the bad ones aside"


def find_voters(bank: Bank, query: Query, options: AdaptOptions) -> Voters:
    """Find the N entries nearest to the task, and the others whose score was needed to find them.

    `options` say which similarity, and N (None: all). An entry that is damaged, or not what the index says, is left
    out with a note; nor has an owner of single models more than ``votes_per_owner`` of them among the N.

    Raises:
        BankError: fewer than N can be used. MetaPruneError: one is bad, and the bank is strict.
    """
    wanted = options.neighbors or len(bank)
    allowed = votes_per_owner(options, wanted, list(bank))
    found: list[Neighbor] = []
    others: list[Neighbor] = []
    owners: Counter[str | None] = Counter()
    capped = False
    similarity = get_similarity(options.by or SIMILARITY)
    for shortlist in _rankings(similarity, query, list(bank)):
        for neighbor in shortlist:
            entry = neighbor.entry
            too_many = entry.owner is not None and owners[entry.owner] >= allowed
            if len(found) == wanted or too_many:
                capped = capped or len(found) < wanted
                others.append(neighbor)
            elif _usable(entry, query, options):
                owners[entry.owner] += 1
                found.append(neighbor)
        if len(found) == wanted:
            break
    if found and capped and len(found) < wanted:
        query.record.note(f"{len(found)} vote, not {wanted}: an owner has at most {allowed} (votes_per_owner)")
    elif not found or (options.neighbors and len(found) < options.neighbors):
        why = "; ".join(query.record.notes[-3:])
        has = counted(len(bank), "entry", "entries")
        raise BankError(f"only {len(found)} of {has} of {bank.title} can be used: {why}; {REMEDY}")
    weights = tuple(similarity.weight(n.score) for n in found) if options.weighted else None
    return Voters(tuple(found), tuple(others), weights)


def _usable(entry: Entry, query: Query, options: AdaptOptions) -> bool:
    """Whether its files are what the index says, and it has what the strategy needs; if not, a note says why."""
    return query.usable(entry, entry.verify) and (options.strategy != "smsp" or query.usable(entry, entry.score_mask))


def _rankings(similarity: Similarity, query: Query, entries: list[Entry]) -> Iterator[Sequence[Neighbor]]:
    """Entries from the nearest on: those of the similarity's shortlist, then, if more are asked for, of its next."""
    while entries:
        some = similarity.shortlist(query, entries)
        yield similarity.rank(query, some)
        seen = {entry.id for entry in some}
        entries = [entry for entry in entries if entry.id not in seen]


def votes_per_owner(options: AdaptOptions, neighbors: int, entries: Sequence[Entry]) -> int:
    """How many of the neighbors may be single models of one owner.

    As asked; else fewer than half, but at least one; as many as there are if nobody else has any.
    """
    if options.votes_per_owner is None and len({entry.owner for entry in entries}) == 1:
        return neighbors
    return options.votes_per_owner or max(1, (neighbors - 1) // 2)

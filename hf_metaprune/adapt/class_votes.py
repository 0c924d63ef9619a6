"""Votes on classes: entries that know a class tell the mean of its images in the base's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..bank.entry import Entry
from ..config import AdaptOptions
from ..data.task import Task
from ..errors import FormatError
from ..models.class_means import ClassMeans
from ..similarity import Neighbor
from ..training.record import RunRecord
from .retrieval import most_within_limit, votes_per_owner
from .ridge import KnownClasses
from .voters import ClassVotes

MAX_COUNT = 100
"""Images beyond which a vote counts no more: the means of so many are exact, and the number is the voter's word."""


def vote_on_classes(
    entries: Sequence[Entry], task: Task, n_features: int, options: AdaptOptions, record: RunRecord
) -> ClassVotes | None:
    """Return the means of the classes that entries know, or None if they know none.

    Two classes are the same if their labels or synsets are, see `Task.matches`. The mean of a class is that of its
    voters' means, each weighted by the images behind it, at most `MAX_COUNT`. Owners are held to fewer than half of the
    voters, as in all votes.

    Args:
        entries: the bank's entries.
        task: the task.
        n_features: the number of the base's features.
        options: how many voters one owner may have.
        record: receives a note on entries that cannot be used.
    """
    neighbors: list[Neighbor] = []
    for entry in entries:
        if entry.class_means is not None and (shared := sum(map(bool, task.matches(entry.task)))):
            neighbors.append(Neighbor(entry, shared / len(task.labels)))
    neighbors.sort(key=lambda neighbor: -neighbor.score)
    sums = torch.zeros(len(task.labels), n_features, dtype=torch.float64)
    weights, voters = torch.zeros(len(task.labels), dtype=torch.float64), []
    limit = votes_per_owner(options, [neighbor.entry for neighbor in neighbors])
    for neighbor in most_within_limit(neighbors, limit) if neighbors else ():
        entry = neighbor.entry
        assert entry.class_means is not None
        try:
            own = ClassMeans.unpack(entry.class_means, len(entry.labels))
        except FormatError as error:
            record.note(f"entry {entry.id} does not vote on classes: {error}")
            continue
        if own.means.shape[1] != n_features:
            record.note(f"entry {entry.id} does not vote on classes: its means have {own.means.shape[1]} features")
            continue
        voters.append(entry)
        for i, matches in enumerate(task.matches(entry.task)):
            for j in matches:
                weight = float(min(own.counts[j], MAX_COUNT))
                sums[i] += weight * torch.as_tensor(own.means[j], dtype=torch.float64)
                weights[i] += weight
    known = torch.nonzero(weights)[:, 0]
    if not len(known):
        return None
    return ClassVotes(KnownClasses(known, sums[known] / weights[known, None]), tuple(voters))

"""Votes on classes: entries that know a class tell the mean of its images in the base's features."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from ..bank.entry import Entry
from ..data.task import Task
from ..errors import FormatError
from ..models.class_means import ClassMeans, count_features
from ..text import quantity
from ..training.record import RunRecord
from ..training.ridge import KnownClasses
from .voters import ClassVotes

MAX_COUNT = 100
"""Images beyond which a voice counts no more: the means of so many are exact, and the number is the voter's word."""


def vote_on_classes(entries: Sequence[Entry], task: Task, n_features: int, record: RunRecord) -> ClassVotes | None:
    """Return the means of the classes that entries know, or None if they know none.

    Two classes are the same if their labels or synsets are, see `Task.matches`. The entries of one owner have one voice
    on a class: the mean of their means, weighted by the images behind each. The mean of a class is that of the voices,
    weighted by their images, at most `MAX_COUNT` each.

    Args:
        entries: the bank's entries.
        task: the task.
        n_features: the number of the base's features.
        record: receives a note on entries that cannot be used.
    """
    positions, voters, n_unusable = task.positions(), [], 0
    voices: dict[tuple[int, str | None], list[tuple[float, torch.Tensor]]] = defaultdict(list)
    for entry in entries:
        if entry.class_means is None:
            continue
        matches = [(j, found) for j in range(len(entry.labels)) if (found := entry.task.find(j, positions))]
        if not matches:
            continue
        if count_features(entry.class_means, len(entry.labels)) != n_features:
            n_unusable += 1
            continue
        try:
            own = ClassMeans.unpack(entry.class_means, len(entry.labels), [j for j, _ in matches])
        except FormatError:
            n_unusable += 1
            continue
        voters.append(entry)
        for row, (_, found) in enumerate(matches):
            mean, count = torch.as_tensor(own.means[row], dtype=torch.float64), float(min(own.counts[row], MAX_COUNT))
            for i in found if count else ():
                voices[i, entry.owner].append((count, mean))
    if n_unusable:
        record.note(
            f"{quantity(n_unusable, 'entry', 'entries')} did not vote on classes: their means are not of this base"
        )
    sums: dict[int, torch.Tensor] = {}
    weights: dict[int, float] = defaultdict(float)
    for (i, _), parts in voices.items():
        counts = torch.tensor([count for count, _ in parts], dtype=torch.float64)
        voice = counts @ torch.stack([mean for _, mean in parts]) / counts.sum()
        weight = min(counts.sum().item(), MAX_COUNT)
        sums[i] = sums[i] + weight * voice if i in sums else weight * voice
        weights[i] += weight
    if not sums:
        return None
    known = sorted(sums)
    means = torch.stack([sums[i] / weights[i] for i in known])
    return ClassVotes(KnownClasses(torch.tensor(known), means), tuple(voters))

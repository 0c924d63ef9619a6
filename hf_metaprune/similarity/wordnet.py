"""WordNet: tasks are near if their classes are near in the taxonomy (Wu & Palmer); no image is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from ..bank.entry import Entry
from ..data.synsets import check_synsets, find_synset, is_guess, is_id, wordnet
from ..data.task import Task
from ..errors import WordNetError
from .similarity import Query, Similarity, register_similarity

PAIRS = 1 << 18
"""Pairs of synsets that are remembered."""


@lru_cache(PAIRS)
def wup(a: Any, b: Any) -> float:
    """Wu & Palmer similarity of two synsets, in [0, 1]; symmetric, and 1 for the same one (NLTK's own is neither).

    The larger of NLTK's two directions. For nouns without a new walk through the taxonomy for each pair, so that an
    entry of thousands of labels does not hold up the ranking.
    """
    if a == b:
        return 1.0
    if a.pos() == b.pos() == "n":
        return _noun_wup(a, b)
    return max(a.wup_similarity(b) or 0.0, b.wup_similarity(a) or 0.0)


def _noun_wup(a: Any, b: Any) -> float:
    above_a, above_b = _above(a), _above(b)
    common = above_a.keys() & above_b.keys()
    if not common:
        return 0.0
    deepest = max(_facts(name)[0] for name in common)
    lowest = [name for name in common if _facts(name)[0] == deepest]

    def score(subsumer: str) -> float:
        _, depth, further = _facts(subsumer)
        steps = sum(min(up[name] + n for name, n in further.items()) for up in (above_a, above_b))
        return 2 * depth / (2 * depth + steps)

    first = min(lowest)
    return max(score(name if name in lowest else first) for name in {a.name(), b.name()})


@cache
def _facts(name: str) -> tuple[int, int, dict[str, int]]:
    """Of a noun: steps to the root on the shortest way, synsets on the longest, and what is `_above` it."""
    synset = wordnet().synset(name)
    return synset.min_depth(), synset.max_depth() + 1, _above(synset)


@cache
def _above(synset: Any) -> dict[str, int]:
    """The names of a synset and of all that are above it, with the fewest steps up to each."""
    found, level, steps = dict[str, int](), [synset], 0
    while level:
        found |= dict.fromkeys((s.name() for s in level), steps)
        level = [up for s in level for up in (*s.hypernyms(), *s.instance_hypernyms()) if up.name() not in found]
        steps += 1
    return found


def task_synsets(task: Task) -> list[Any | None]:
    """A synset for each class, explicit ids (of WordNet or ImageNet) first; None where there is none."""
    explicit = [find_synset(s) if s and is_id(s) else None for s in task.synsets]
    return [e or find_synset(label) for e, label in zip(explicit, task.labels, strict=True)]


def task_similarity(a: Sequence[Any], b: Sequence[Any]) -> float:
    """Mean best match of a's classes in b and of b's in a: symmetric, in [0, 1].

    A class that matches nothing counts in its own direction and is drowned by no other; the reverse direction keeps
    a large task from being near to every small one. Unknown synsets (None) are left out of the mean.
    """
    a, b = [s for s in a if s is not None], [s for s in b if s is not None]
    if not a or not b:
        return 0.0
    pairs = [[wup(x, y) for y in b] for x in a]
    there = sum(max(row) for row in pairs) / len(a)
    back = sum(max(column) for column in zip(*pairs, strict=True)) / len(b)
    return (there + back) / 2


class WordNet(Similarity):
    """Wu & Palmer similarity of class labels; needs the WordNet data, but neither images nor weights."""

    name = "wordnet"
    reference = "Wu & Palmer, 1994; Pedersen et al., 2004"

    def scores(self, query: Query, entries: Sequence[Entry]) -> Mapping[str, float]:
        check_synsets(query.task.synsets)
        target = task_synsets(query.task)
        unknown = [label for label, s in zip(query.task.labels, target, strict=True) if s is None]
        if len(unknown) == len(target):
            raise WordNetError(
                f"none of the labels is in WordNet: {', '.join(unknown[:5])}; pass synsets=, or use by='leep'"
            )
        if unknown:
            query.record.note(f"labels without a WordNet synset, left out of the ranking: {', '.join(unknown)}")
        guessed = [
            f"{label} as {synset.name()}"
            for label, given, synset in zip(query.task.labels, query.task.synsets, target, strict=True)
            if synset is not None and not (given and is_id(given)) and is_guess(label)
        ]
        if guessed:
            query.record.note(f"labels that WordNet knows by one word only, read as a guess: {', '.join(guessed)}")
        found, silent = {}, []
        for entry in entries:
            synsets = task_synsets(entry.task)
            if any(s is not None for s in synsets):
                found[entry.id] = task_similarity(target, synsets)
            else:
                silent.append(entry.id)
        if silent:
            shown = ", ".join(silent[:5])
            query.record.note(f"{len(silent)} entries have no label in WordNet and were left out: {shown}")
        return found


register_similarity(WordNet())

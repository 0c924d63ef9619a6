"""Similarity by WordNet: tasks are near if their classes are near in the taxonomy (Wu & Palmer). It uses no image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from ..bank.entry import Entry
from ..data.synsets import check_synsets, find_synset, is_guess, is_synset_id, wordnet
from ..data.task import Task
from ..errors import WordNetError
from .similarity import Query, Similarity, register_similarity

CACHED_PAIRS = 1 << 18
"""Number of pairs of synsets whose similarity is kept in memory."""


@lru_cache(CACHED_PAIRS)
def wu_palmer(a: Any, b: Any) -> float:
    """Return the Wu & Palmer similarity of two synsets (Wu & Palmer, 1994).

    NLTK's own similarity depends on the order of the two synsets; this is the larger of its two values. For nouns it
    is computed without walking through the taxonomy once per pair, because an entry may have thousands of labels.

    Args:
        a: an NLTK synset.
        b: an NLTK synset.

    Returns:
        A number in [0, 1]; 1 for the same synset.
    """
    if a == b:
        return 1.0
    if a.pos() == b.pos() == "n":
        return _noun_wup(a, b)
    return max(a.wup_similarity(b) or 0.0, b.wup_similarity(a) or 0.0)


def _noun_wup(a: Any, b: Any) -> float:
    """Return what NLTK's ``wup_similarity`` gives for two nouns, the larger of its two directions."""
    steps_from_a, steps_from_b = _hypernym_steps(a), _hypernym_steps(b)
    common = steps_from_a.keys() & steps_from_b.keys()
    if not common:
        return 0.0
    max_depth = max(_noun_facts(name)[0] for name in common)
    lowest = [name for name in common if _noun_facts(name)[0] == max_depth]

    def score(subsumer: str) -> float:
        _, depth, hypernyms = _noun_facts(subsumer)
        steps = sum(min(up[name] + n for name, n in hypernyms.items()) for up in (steps_from_a, steps_from_b))
        return 2 * depth / (2 * depth + steps)

    first = min(lowest)  # NLTK takes the synset itself if it is among the lowest, else the first by name
    return max(score(name if name in lowest else first) for name in {a.name(), b.name()})


@cache
def _noun_facts(name: str) -> tuple[int, int, dict[str, int]]:
    """Return a noun's steps to the root on the shortest way, synsets on the longest way, and `_hypernym_steps`."""
    synset = wordnet().synset(name)
    return synset.min_depth(), synset.max_depth() + 1, _hypernym_steps(synset)


@cache
def _hypernym_steps(synset: Any) -> dict[str, int]:
    """Return the fewest steps up from a synset to itself and to each of its hypernyms, by name."""
    fewest_steps, level, steps = dict[str, int](), [synset], 0
    while level:
        fewest_steps |= dict.fromkeys((s.name() for s in level), steps)
        level = [up for s in level for up in (*s.hypernyms(), *s.instance_hypernyms()) if up.name() not in fewest_steps]
        steps += 1
    return fewest_steps


def task_synsets(task: Task) -> list[Any | None]:
    """Return an NLTK synset for each class of a task, None for classes that WordNet does not know.

    A synset id (of WordNet or ImageNet) of the task wins over the class's label.
    """
    explicit = [find_synset(s) if s and is_synset_id(s) else None for s in task.synsets]
    return [e or find_synset(label) for e, label in zip(explicit, task.labels, strict=True)]


def task_similarity(a: Sequence[Any], b: Sequence[Any]) -> float:
    """Return the mean of the best matches of a's classes in b and of b's classes in a.

    Both directions count equally. Without the second one, a task of many classes would be near to every small task.

    Args:
        a: the synset of each class, from `task_synsets`; None is left out.
        b: the same of the other task.

    Returns:
        A number in [0, 1], the same for (b, a); 0 if one of the tasks has no synset.
    """
    a, b = [s for s in a if s is not None], [s for s in b if s is not None]
    if not a or not b:
        return 0.0
    pairs = [[wu_palmer(x, y) for y in b] for x in a]
    a_in_b = sum(max(row) for row in pairs) / len(a)
    b_in_a = sum(max(column) for column in zip(*pairs, strict=True)) / len(b)
    return (a_in_b + b_in_a) / 2


class WordNet(Similarity):
    """Wu & Palmer similarity of class labels, which needs the WordNet data, but neither images nor weights."""

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
            query.record.note(f"labels that WordNet does not know do not count in the ranking: {', '.join(unknown)}")
        guesses = [
            f"{label} as {synset.name()}"
            for label, synset_id, synset in zip(query.task.labels, query.task.synsets, target, strict=True)
            if synset is not None and not (synset_id and is_synset_id(synset_id)) and is_guess(label)
        ]
        if guesses:
            query.record.note(
                f"WordNet knows only one word of some labels, and its meaning is a guess: {', '.join(guesses)}"
            )
        scores, entries_without = {}, []
        for entry in entries:
            synsets = task_synsets(entry.task)
            if any(s is not None for s in synsets):
                scores[entry.id] = task_similarity(target, synsets)
            else:
                entries_without.append(entry.id)
        if entries_without:
            id_list = ", ".join(entries_without[:5])
            query.record.note(f"{len(entries_without)} entries have no label in WordNet and are left out: {id_list}")
        return scores


register_similarity(WordNet())

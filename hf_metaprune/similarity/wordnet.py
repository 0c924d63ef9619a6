"""WordNet: tasks are near if their classes are near in the taxonomy (Wu & Palmer); no image is looked at."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from ..bank.entry import Entry
from ..errors import WordNetError
from ..task import IMAGENET_LABEL, SYNSET, Task
from .similarity import Query, Similarity, register_similarity

GET_WORDNET = "python -m nltk.downloader wordnet"
IMAGENET_ID = re.compile(r"n(\d{8})")


@cache
def wordnet() -> Any:
    """NLTK's WordNet reader, loaded.

    Raises:
        WordNetError: its data is not installed; says the command that gets it.
    """
    from nltk.corpus import wordnet as reader

    try:
        reader.ensure_loaded()
    except LookupError as error:
        where = f" (NLTK_DATA is {os.environ['NLTK_DATA']})" if "NLTK_DATA" in os.environ else ""
        raise WordNetError(f"the WordNet data is missing{where}; get it once with: {GET_WORDNET}") from error
    return reader


def readings(label: str) -> Iterator[str]:
    """Ways to look a label up as a whole: cleaned, without brackets; each part of a list."""
    text = re.sub(r"\(.*?\)|\[.*?\]", " ", label)
    for part in [text, *re.split(r"[,/;|]", text)]:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", part)
        words = re.sub(r"[^\w']+|_+|(?<=\D)\d+$", " ", words).strip().lower()
        if words:
            yield words.replace(" ", "_")


def words_of(label: str) -> Iterator[str]:
    """The words of a label, the last one first: in English the head noun comes last."""
    words = re.sub(r"\(.*?\)|\[.*?\]|['’]s\b|[\W\d_]+", " ", label).lower().split()
    yield from (word for word in reversed(words) if len(word) > 1)


@cache
def find_synset(label: str) -> Any | None:
    """The synset of a label, or None: a synset id, an ImageNet id (``n01440764``), or the first noun sense.

    Plurals and other inflections are reduced by WordNet's own rules (morphy).
    """
    reader = wordnet()
    text = label.strip()
    if match := IMAGENET_ID.fullmatch(text):
        return _by_offset(reader, int(match[1]))
    if SYNSET.fullmatch(text):
        return _by_name(reader, text)
    if match := IMAGENET_LABEL.match(text):
        return find_synset(match[1]) or find_synset(text[match.end() :])
    for reading in (*readings(text), *words_of(text)):
        if found := reader.synsets(reading, pos="n"):
            return found[0]
    return None


def is_guess(label: str) -> bool:
    """Whether the label's synset is that of one of its words, since WordNet lacks the whole."""
    ids = re.match(r"n\d{8}\b", label.strip()) or SYNSET.fullmatch(label.strip())
    return not ids and not any(wordnet().synsets(r, pos="n") for r in readings(label))


def _by_name(reader: Any, name: str) -> Any | None:
    try:
        return reader.synset(name)
    except Exception as error:  # NLTK raises its own, ValueError and others for bad names
        if isinstance(error, (KeyboardInterrupt, MemoryError)):
            raise
        return None


def _by_offset(reader: Any, offset: int) -> Any | None:
    try:
        return reader.synset_from_pos_and_offset("n", offset)
    except Exception as error:
        if isinstance(error, (KeyboardInterrupt, MemoryError)):
            raise
        return None


@cache
def wup(a: Any, b: Any) -> float:
    """Wu & Palmer similarity of two synsets, in [0, 1]; symmetric, and 1 for the same one (NLTK's own is neither)."""
    return 1.0 if a == b else max(a.wup_similarity(b) or 0.0, b.wup_similarity(a) or 0.0)


def task_synsets(task: Task) -> list[Any | None]:
    """A synset for each class, explicit ids (of WordNet or ImageNet) first; None where there is none."""
    explicit = [find_synset(s) if s and is_id(s) else None for s in task.synsets]
    return [e or find_synset(label) for e, label in zip(explicit, task.labels, strict=True)]


def is_id(text: str) -> bool:
    """Whether a text has the form of a synset's id (``dog.n.01``) or of ImageNet's (``n02084071``)."""
    return bool(SYNSET.fullmatch(text))


@cache
def canonical(text: str) -> str:
    """A synset's id as its WordNet name; an ImageNet id stays as it is where the WordNet data is missing."""
    if not IMAGENET_ID.fullmatch(text):
        return text
    try:
        found = find_synset(text)
    except WordNetError:
        return text
    return found.name() if found is not None else text


def check_synsets(synsets: Sequence[str | None]) -> None:
    """Refuse explicit ids that WordNet does not have.

    Raises:
        WordNetError: names them.
    """
    unknown = [s for s in synsets if s and not (is_id(s) and find_synset(s))]
    if unknown:
        raise WordNetError(f"WordNet has no synset {', '.join(unknown[:5])}: ids look like dog.n.01 or n02084071")


def task_similarity(a: Sequence[Any], b: Sequence[Any]) -> float:
    """Mean best match of a's classes in b and of b's in a: symmetric, in [0, 1].

    A class that matches nothing counts in its own direction and is drowned by no other; the reverse direction keeps
    a large task from being near to every small one. Unknown synsets (None) are left out of the mean.
    """
    a, b = [s for s in a if s is not None], [s for s in b if s is not None]
    if not a or not b:
        return 0.0
    there = sum(max(wup(x, y) for y in b) for x in a) / len(a)
    back = sum(max(wup(x, y) for x in a) for y in b) / len(b)
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
            query.notes.append(f"labels without a WordNet synset, left out of the ranking: {', '.join(unknown)}")
        guessed = [
            f"{label} as {synset.name()}"
            for label, given, synset in zip(query.task.labels, query.task.synsets, target, strict=True)
            if synset is not None and not (given and is_id(given)) and is_guess(label)
        ]
        if guessed:
            query.notes.append(f"labels that WordNet knows by one word only, read as a guess: {', '.join(guessed)}")
        found, silent = {}, []
        for entry in entries:
            synsets = task_synsets(entry.task)
            if any(s is not None for s in synsets):
                found[entry.id] = task_similarity(target, synsets)
            else:
                silent.append(entry.id)
        if silent:
            shown = ", ".join(silent[:5])
            query.notes.append(f"{len(silent)} entries have no label in WordNet and were left out: {shown}")
        return found


register_similarity(WordNet())

"""Labels and WordNet: synset ids, ImageNet ids, and the synset that a label means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from ..errors import WordNetError

GET_WORDNET = "python -m nltk.downloader wordnet"
IMAGENET_ID = re.compile(r"n(\d{8})")
IMAGENET_LABEL = re.compile(r"(n\d{8})[\s_:-]")  # "n02084071 dog"
SYNSET = re.compile(r"\S{1,100}\.[nvars]\.\d{1,3}|n\d{8}")
"""A WordNet synset (``dog.n.01``) or an ImageNet id (``n02084071``)."""


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


def label_words(label: str) -> Iterator[str]:
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
    for reading in (*readings(text), *label_words(text)):
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

"""What all cards share: YAML in front, text below, and respect for what people changed by hand."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import yaml

from ..errors import FormatError, reason

MAX_CARD_BYTES = 2 << 20
FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n?^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
YAML_ERRORS = (
    *(yaml.YAMLError, ValueError, RecursionError, OverflowError),
    *(KeyError, IndexError, AttributeError, TypeError),  # of values that do not fit their tag, such as "!!bool 5"
)
KEY = re.compile(r"([A-Za-z_][\w-]*):(?:\s|\Z)")
MARK = re.compile(r"<!-- hf-metaprune card ([0-9a-f]{16})(?: ([\w,-]*))?(?: sent ([0-9a-f]{16}))? -->\s*\Z")
"""Digest of the text as it was made, keys that were written, digest of the text that a folder's card had instead."""


class Card(ABC):
    """A card as data; `data` and `text` are pure."""

    own_keys: ClassVar[tuple[str, ...]]
    """Keys of the YAML that this library writes, and keeps up to date in a card that people have edited."""
    license: str | None
    measured: ClassVar[tuple[str, ...]] = ("model-index", "metaprune")
    """Those that say what is true of one model only: of another they are not kept."""

    @abstractmethod
    def data(self) -> dict[str, Any]:
        """The YAML block."""

    @abstractmethod
    def text(self) -> str:
        """The Markdown below it."""

    def render(self, existing: str | None = None, own: str | None = None) -> str:
        """The whole file.

        Args:
            existing: the card that is there. Of one that was edited by hand only the YAML's own keys are changed.
            own: the card in the folder that the model was loaded from. What people have added to it is taken over, its
                text only where nobody has edited the existing one's.
        """
        existing, own = (card if card and card.strip() else None for card in (existing, own))
        self.license = self.license or stated_license(existing) or (None if _states(existing) else stated_license(own))
        body = self.text().strip() + "\n"
        wrote = ",".join(key for key in self.own_keys if self.data().get(key) is not None)
        mark = f"<!-- hf-metaprune card {_digest(body)} {wrote} -->"
        fresh = f"{_front(self.data())}\n{body}\n{mark}\n"
        first = existing if existing is not None else own
        if first is None:
            return fresh
        try:
            rest = split(first)[1]
            front = _edited(first, self._with_theirs(*(card for card in (existing, own) if card is not None)))
        except FormatError:
            return first  # what cannot be parsed is not ours to repair
        end = "\r\n" if front.endswith("\r\n") else "\n"
        if own is not None and takes_own(existing, own):
            text = self.renamed(_body(own))
            mark = f"<!-- hf-metaprune card {_digest(body)} {wrote} sent {_digest(text)} -->"
            rest = f"{text}\n{mark}\n".replace("\n", end)
        elif is_untouched(first) or not rest.strip():
            rest = f"{body}\n{mark}\n"
        else:
            rest = MARK.sub(lambda found: f"<!-- hf-metaprune card {found[1]} {wrote}{_sent(found)} -->{end}", rest)
        return front + end + rest.lstrip("\r\n")

    def renamed(self, text: str) -> str:
        """The text of a card that may call the model by another name, with its own."""
        return text

    def _with_theirs(self, *cards: str) -> dict[str, Any]:
        """The YAML with what people have added to cards, the first of which counts more.

        That is: keys that are not ours, or of which we know nothing, and tags.
        """
        ours = {key: value for key, value in self.data().items() if value is not None}
        data, tags = dict[str, Any](), list(ours["tags"])
        for card in cards:
            gone, old = {*self.measured, *_written(card)}, split(card)[0]
            data |= {key: value for key, value in old.items() if key not in gone and key not in data}
            theirs = old.get("tags")
            some = theirs if isinstance(theirs, list) else [theirs]
            tags += [tag for tag in some if isinstance(tag, str) and tag not in tags]
        return data | ours | {"tags": tags}


def is_edited(content: str) -> bool:
    """Whether a card has a text that people have written or changed."""
    return bool(_body(content).strip()) and not is_untouched(content)


def takes_own(existing: str | None, own: str) -> bool:
    """Whether the text of the card in a model's folder goes out: it was edited, the one that is there was not."""
    if not is_edited(own):
        return False
    if not existing or not existing.strip() or is_untouched(existing):
        return True
    mark = MARK.search(existing)
    return bool(mark and mark[3] == _digest(_body(existing)))  # as it was sent from a folder


def _body(content: str) -> str:
    """The text of a card, without its mark."""
    mark, found = MARK.search(content), FRONT.match(content)
    text = content[found.end() if found else 0 : mark.start() if mark else len(content)]
    return text.replace("\r\n", "\n").strip() + "\n"


def _sent(mark: re.Match[str]) -> str:
    return f" sent {mark[3]}" if mark[3] else ""


def _states(existing: str | None) -> bool:
    """Whether a card states some license, or a list of them."""
    try:
        return split(existing or "")[0].get("license") is not None
    except FormatError:
        return True


def _written(content: str) -> list[str]:
    """The keys of a card's YAML that this library wrote when it last did: of another model they need not hold."""
    mark = MARK.search(content)
    return [key for key in (mark[2] or "").split(",") if key != "tags"] if mark else []


def stated_license(existing: str | None) -> str | None:
    """The license that a card states already."""
    try:
        found = split(existing or "")[0].get("license")
    except FormatError:
        return None
    return found if isinstance(found, str) and len(found) <= 100 else None


def split(content: str) -> tuple[dict[str, Any], str]:
    """The YAML of a card, and the text below.

    Raises:
        FormatError: the YAML cannot be read, or is no object.
    """
    found = FRONT.match(content)
    if not found:
        return {}, content
    if len(found[1]) > MAX_CARD_BYTES:
        raise FormatError(f"the card's YAML has more than {MAX_CARD_BYTES} characters")
    try:
        data = yaml.load(found[1], Loader=_PlainLoader)
    except YAML_ERRORS as error:
        raise FormatError(f"the card's YAML cannot be read: {reason(error)}") from error
    if not isinstance(data, dict | None):
        raise FormatError("the card's YAML is no object")
    return dict(data or {}), content[found.end() :]


def is_untouched(content: str) -> bool:
    """Whether the text of a card is as this library wrote it."""
    mark = MARK.search(content)
    return bool(mark) and _digest(_body(content)) == mark[1]  # type: ignore[index]


def table(header: list[str], rows: list[list[str]], numbers: int = 0) -> str:
    """A Markdown table; the last `numbers` columns are aligned to the right. Cells must be escaped."""
    dashes = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, dashes, *rows])


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: nested ones make a short text a huge object."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _front(data: Mapping[str, Any]) -> str:
    filled = {key: value for key, value in data.items() if value is not None}
    try:
        dumped = yaml.dump(filled, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # an integer of too many digits
        raise FormatError(f"the card's YAML cannot be written: {reason(error)}") from error
    return f"---\n{dumped}---\n"


def _edited(existing: str, data: Mapping[str, Any]) -> str:
    """The front of a card with these data; lines whose data stay the same stay as they are, comments included."""
    found = FRONT.match(existing)
    lines, done = list[str](), set[str]()
    for key, block in _blocks(found[1] if found else ""):
        if key is None:
            lines += block
        elif key in data and key not in done:
            lines += block if _says("\n".join(block), {key: data[key]}) else _front({key: data[key]}).splitlines()[1:-1]
            done.add(key)
    if rest := {key: value for key, value in data.items() if key not in done}:
        lines += _front(rest).splitlines()[1:-1]
    end = "\r\n" if found and "\r\n" in found[0] else "\n"
    made = end.join(["---", *lines, "---", ""])
    try:
        if split(made)[0] == {key: value for key, value in data.items() if value is not None}:
            return made
    except FormatError:  # a style in which keys are no lines
        pass
    return _front(data)


def _says(text: str, data: Mapping[str, Any]) -> bool:
    try:
        return yaml.load(text, Loader=_PlainLoader) == data
    except YAML_ERRORS:
        return False


def _blocks(front: str) -> Iterator[tuple[str | None, list[str]]]:
    """Lines of YAML by the key at the top that they belong to; those that belong to none by themselves."""
    key: str | None = None
    block: list[str] = []
    lines = front.splitlines()
    after, filled = list[str](), ""
    for line in reversed(lines):
        filled = line if line.strip() else filled
        after.append(filled)
    for line, filled in zip(lines, reversed(after), strict=True):  # each with the next line, or itself, that is filled
        begins = KEY.match(line)
        inside = not line.strip() and filled.startswith((" ", "\t", "- "))  # an empty line of a text, or of a list
        if begins or line.startswith("#") or (not line.strip() and not inside):
            if block:
                yield key, block
            key, block = (begins[1] if begins else None), [line]
        else:
            block.append(line)
    if block:
        yield key, block


def _digest(body: str) -> str:
    return hashlib.sha256(body.replace("\r\n", "\n").encode()).hexdigest()[:16]

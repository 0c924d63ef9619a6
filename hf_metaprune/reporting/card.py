"""The base of all cards: YAML in front, text below; edits that people made by hand are kept."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import yaml

from ..errors import FormatError, reason
from ..files.storage import MAX_DEPTH

MAX_CARD_BYTES = 2 << 20
"""Larger cards are neither read nor written."""
MAX_YAML_EVENTS = 25_000
"""Most values in a card's YAML, with the begin and the end of each list; a card of 10,000 labels has fewer."""
MAX_FRONT = 1_000_000
"""Most characters of a card's YAML."""
MAX_NUMBER_AS_KEY = 18
"""Most characters of a number that is a key: all such whole numbers have hashes of their own."""
MAX_NUMBER = 100
"""Most characters of a number: PyYAML takes time in proportion to the square of those of a number to base 60."""
MAX_DIRECTIVES = 10
"""Most lines that begin with ``%``: libyaml compares each directive with all others."""
DIRECTIVE = re.compile("(?:\\A|[\n\r\x85\u2028\u2029])%")  # libyaml breaks lines at all of these
FRONT_PATTERN = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n?^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
YAML_ERRORS = (
    *(yaml.YAMLError, ValueError, RecursionError, OverflowError),
    *(KeyError, IndexError, AttributeError, TypeError),  # raised by values that do not fit their tag: "!!bool 5"
)
KEY_PATTERN = re.compile(r"([A-Za-z_][\w-]*):(?:\s|\Z)")
MARK_PATTERN = re.compile(r"<!-- hf-metaprune card ([0-9a-f]{16})(?: ([\w,-]*))?(?: sent ([0-9a-f]{16}))? -->\s*\Z")
"""The comment that ends a card of this library, with what was written, so that later edits can be told.

It has the digest of the text that the library made, the keys that it wrote, and, if the text of a folder's card was
sent instead, the digest of that text.
"""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The loader of all cards; it refuses long numbers as keys, which may share a hash, and keys that are merged."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag.endswith(":merge"):
                raise yaml.YAMLError("its YAML merges keys (<<)")
            if key.tag.endswith((":int", ":float")) and len(str(key.value)) > MAX_NUMBER_AS_KEY:
                raise yaml.YAMLError(f"a number as a key has more than {MAX_NUMBER_AS_KEY} characters")
        return super().construct_mapping(node, deep)


def _construct_number(loader: Any, node: Any) -> int | float:
    if len(str(node.value)) > MAX_NUMBER:
        raise yaml.YAMLError(f"a number has more than {MAX_NUMBER} characters")
    is_integer = node.tag.endswith(":int")
    return loader.construct_yaml_int(node) if is_integer else loader.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct_number)


class Card(ABC):
    """A card as data; `data` and `text` change nothing and depend only on the fields."""

    own_keys: ClassVar[tuple[str, ...]]
    """Keys of the YAML that this library writes, and keeps up to date in a card that people have edited."""
    license: str | None
    """The license to state, such as ``apache-2.0``; None if nobody has stated one."""
    measured_keys: ClassVar[tuple[str, ...]] = ("model-index", "metaprune")
    """Keys with values of one model only; they are never taken from the card of another model."""

    @abstractmethod
    def data(self) -> dict[str, Any]:
        """Return the values of the YAML block."""

    @abstractmethod
    def text(self) -> str:
        """Return the Markdown text below the YAML block."""

    def render(self, existing: str | None = None, own: str | None = None) -> str:
        """Return the whole file.

        Args:
            existing: the published card. If people have edited its text, only the library's keys of the YAML change.
            own: the card in the folder that the model was loaded from. Keys that people have added to it are kept. Its
                text is kept unless people have edited that of the published card.

        Raises:
            FormatError: a value cannot be written as YAML.
        """
        existing, own = (card if card and card.strip() else None for card in (existing, own))
        cards = [card for card in (existing, own) if card is not None]
        values = [_values(card) for card in cards]  # parsed once: it is most of the work
        self.license = self.license or _kept_license(values)
        body = self.text().strip() + "\n"
        written_keys = ",".join(key for key in self.own_keys if self.data().get(key) is not None)
        mark = f"<!-- hf-metaprune card {_digest(body)} {written_keys} -->"
        new_card = f"{_dump_front(self.data())}\n{body}\n{mark}\n"
        if not cards:
            return new_card
        kept_card = cards[0]
        kept_text = _below_front(kept_card)
        readable = [(card, data) for card, data in zip(cards, values, strict=True) if data is not None]
        if len(readable) < len(cards):
            return kept_card  # a card that cannot be parsed is left as it is
        try:
            front = _edit_front(kept_card, self._merged_data(readable))
        except FormatError:  # nor is one with values that cannot be written
            return kept_card
        line_end = "\r\n" if front.endswith("\r\n") else "\n"
        if own is not None and sends_own_text(existing, own):
            text = self.with_own_name(_card_text(own))
            mark = f"<!-- hf-metaprune card {_digest(body)} {written_keys} sent {_digest(text)} -->"
            kept_text = f"{text}\n{mark}\n".replace("\n", line_end)
        elif is_untouched(kept_card) or not kept_text.strip():
            kept_text = f"{body}\n{mark}\n"
        else:
            kept_text = MARK_PATTERN.sub(
                lambda match: f"<!-- hf-metaprune card {match[1]} {written_keys}{_sent_suffix(match)} -->{line_end}",
                kept_text,
            )
        return front + line_end + kept_text.lstrip("\r\n")

    def with_own_name(self, text: str) -> str:
        """Return the text of a card with this model's name in place of an earlier one."""
        return text

    def _merged_data(self, cards: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
        """Return the values of the YAML block with keys and tags that people have added to earlier cards.

        If two cards have the same key, the first card counts.
        """
        own_data = {key: value for key, value in self.data().items() if value is not None}
        data, tags = dict[str, Any](), dict.fromkeys(own_data["tags"])
        for card, card_data in cards:
            outdated_keys = {*self.measured_keys, *_written_keys(card)}
            data |= {key: value for key, value in card_data.items() if key not in outdated_keys and key not in data}
            card_tags = card_data.get("tags")
            tag_list = card_tags if isinstance(card_tags, list) else [card_tags]
            tags |= dict.fromkeys(tag for tag in tag_list if isinstance(tag, str))
        return data | own_data | {"tags": list(tags)}


def is_edited(content: str) -> bool:
    """Return whether a card has a text that people have written or changed."""
    return bool(_card_text(content).strip()) and not is_untouched(content)


def sends_own_text(existing: str | None, own: str) -> bool:
    """Return whether the text of a folder's card is published: it was edited, and the published one was not."""
    if not is_edited(own):
        return False
    if not existing or not existing.strip() or is_untouched(existing):
        return True
    mark = MARK_PATTERN.search(existing)
    return bool(mark and mark[3] == _digest(_card_text(existing)))  # unchanged since it was sent from a folder


def _below_front(content: str) -> str:
    """Return what is below the YAML block of a card, with its mark."""
    front = FRONT_PATTERN.match(content)
    return content[front.end() :] if front else content


def _card_text(content: str) -> str:
    """Return the text of a card, without its mark."""
    return MARK_PATTERN.sub("", _below_front(content)).replace("\r\n", "\n").strip() + "\n"


def _sent_suffix(mark: re.Match[str]) -> str:
    return f" sent {mark[3]}" if mark[3] else ""


def _written_keys(content: str) -> list[str]:
    """Return the keys that this library wrote into a card's YAML; their values may be those of another model."""
    mark = MARK_PATTERN.search(content)
    return [key for key in (mark[2] or "").split(",") if key != "tags"] if mark else []


def _kept_license(values: list[dict[str, Any] | None]) -> str | None:
    """Return the license of the first card that states one; None if it is no name, or if a card cannot be read."""
    for data in values:
        license = None if data is None else data.get("license")
        if data is None or license is not None:
            return license if isinstance(license, str) and len(license) <= 100 else None
    return None


def _values(card: str) -> dict[str, Any] | None:
    """Return the values of a card's YAML block; None if they cannot be read."""
    try:
        return split_card(card)[0]
    except FormatError:
        return None


def split_card(content: str) -> tuple[dict[str, Any], str]:
    """Split a card into the values of its YAML block and the text below.

    Raises:
        FormatError: the YAML cannot be read, or is not an object.
    """
    front = FRONT_PATTERN.match(content)
    if not front:
        return {}, content
    if len(front[1]) > MAX_FRONT:
        raise FormatError(f"the card's YAML cannot be read: it has more than {MAX_FRONT} characters")
    try:
        data = _load_yaml(front[1])
    except YAML_ERRORS as error:
        raise FormatError(f"the card's YAML cannot be read: {reason(error)}") from error
    if not isinstance(data, dict | None):
        raise FormatError("the card's YAML is not an object")
    return dict(data or {}), content[front.end() :]


def is_untouched(content: str) -> bool:
    """Return whether the text of a card is as this library wrote it."""
    mark = MARK_PATTERN.search(content)
    return bool(mark) and _digest(_card_text(content)) == mark[1]  # type: ignore[index]


def markdown_table(header: list[str], rows: list[list[str]], numbers: int = 0) -> str:
    """Return a Markdown table of escaped cells; the last `numbers` columns are aligned to the right."""
    dashes = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, dashes, *rows])


def _load_yaml(text: str) -> Any:
    """Load a YAML text after a check of its size.

    Aliases are refused, because nested ones make a huge object of a short text.

    Raises:
        yaml.YAMLError: the text is malformed, has aliases, too many values, or too many levels.
    """
    if len(DIRECTIVE.findall(text)) > MAX_DIRECTIVES:
        raise yaml.YAMLError(f"more than {MAX_DIRECTIVES} directives")
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if count > MAX_YAML_EVENTS or depth > MAX_DEPTH:
            raise yaml.YAMLError(f"more than {MAX_YAML_EVENTS} values or {MAX_DEPTH} levels")
    return yaml.load(text, Loader=_Loader)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dump_front(data: Mapping[str, Any]) -> str:
    values = {key: value for key, value in data.items() if value is not None}
    try:
        yaml_text = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as an integer of too many digits
        raise FormatError(f"the card's YAML cannot be written: {reason(error)}") from error
    return f"---\n{yaml_text}---\n"


def _edit_front(existing: str, data: Mapping[str, Any]) -> str:
    """Return the YAML block of a card with new values; lines of unchanged values stay, with their comments."""
    front = FRONT_PATTERN.match(existing)
    lines, written_keys = list[str](), set[str]()
    for key, block in _blocks(front[1] if front else ""):
        if key is None:
            lines += block
        elif key in data and key not in written_keys:
            lines += (
                block
                if _parses_as("\n".join(block), {key: data[key]})
                else _dump_front({key: data[key]}).splitlines()[1:-1]
            )
            written_keys.add(key)
    if new_values := {key: value for key, value in data.items() if key not in written_keys}:
        lines += _dump_front(new_values).splitlines()[1:-1]
    line_end = "\r\n" if front and "\r\n" in front[0] else "\n"
    text = line_end.join(["---", *lines, "---", ""])
    try:
        if split_card(text)[0] == {key: value for key, value in data.items() if value is not None}:
            return text
    except FormatError:  # in some styles a key has no line of its own
        pass
    return _dump_front(data)


def _parses_as(text: str, data: Mapping[str, Any]) -> bool:
    try:
        return _load_yaml(text) == data
    except YAML_ERRORS:
        return False


def _blocks(front: str) -> Iterator[tuple[str | None, list[str]]]:
    """Yield blocks of lines with the top-level key that they belong to, or None."""
    key: str | None = None
    block: list[str] = []
    lines = front.splitlines()
    next_lines, next_line = list[str](), ""
    for line in reversed(lines):
        next_line = line if line.strip() else next_line
        next_lines.append(next_line)
    # each line comes with the first line from it on that is not empty
    for line, next_line in zip(lines, reversed(next_lines), strict=True):
        key_match = KEY_PATTERN.match(line)
        is_in_block = not line.strip() and next_line.startswith((" ", "\t", "- "))  # an empty line in a text or a list
        if key_match or line.startswith("#") or (not line.strip() and not is_in_block):
            if block:
                yield key, block
            key, block = (key_match[1] if key_match else None), [line]
        else:
            block.append(line)
    if block:
        yield key, block


def _digest(body: str) -> str:
    return hashlib.sha256(body.replace("\r\n", "\n").encode()).hexdigest()[:16]

"""Limits of how much a JSON file may hold, which are checked before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Counts:
    """The most that a JSON object of one kind of file may hold."""

    items: int = 1000
    """Items of a list or an object that is a value of the object."""
    items_by_key: Mapping[str, int] = field(default_factory=dict)
    """The same by key, for values that may have more or fewer."""
    values: int = 50_000
    """Lists, objects, texts and numbers at all levels of a value of the object."""
    values_by_key: Mapping[str, int] = field(default_factory=dict)
    """The same by key, for values that may have more or fewer."""
    text: int = 10_000
    """Characters of a text."""
    characters: int = 500_000
    """Characters of all texts of a value of the object together."""
    characters_by_key: Mapping[str, int] = field(default_factory=dict)
    """The same by key, for values that may have more or fewer."""

    def check(self, values: Mapping[str, Any]) -> None:
        """Check how much an object holds.

        Args:
            values: the object, as it was read.

        Raises:
            ValueError: there is too much; the message names the key.
        """
        for key, value in values.items():
            total, characters, limit = 0, 0, self.items_by_key.get(key, self.items)
            max_values = self.values_by_key.get(key, self.values)
            max_characters = self.characters_by_key.get(key, self.characters)
            if isinstance(value, (list, dict)) and len(value) > limit:
                raise ValueError(f"its {key[:40]} has {len(value)} items, more than {limit}")
            pending = [value]
            while pending:
                part = pending.pop()
                if isinstance(part, str):
                    if len(part) > self.text:
                        raise ValueError(f"its {key[:40]} has a text of {len(part)} characters, more than {self.text}")
                    characters += len(part)
                    if characters > max_characters:
                        raise ValueError(f"its {key[:40]} is too large: at most {max_characters} characters are read")
                if not isinstance(part, (list, dict)):
                    continue
                total += len(part)
                if total > max_values:
                    raise ValueError(f"its {key[:40]} is too large: at most {max_values} values are read")
                if isinstance(part, dict):
                    pending += [name for name in part if isinstance(name, str)]
                    part = list(part.values())
                pending += [item for item in part if isinstance(item, (list, dict, str))]

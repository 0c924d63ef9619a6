"""Named parts that third-party packages can add to: pruning methods and similarities."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Generic, Protocol, TypeVar

from .errors import OptionError


class Named(Protocol):
    """Anything with a name to be called by."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """Parts of one `kind` by name; those of installed plugins are found through an entry point `group`."""

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self._parts: dict[str, T] = {}

    def register(self, part: T) -> T:
        """Make a part known by its name; a second one of the same name is refused."""
        if part.name in self._parts:
            raise OptionError(f"a {self.kind} named {part.name!r} is registered already")
        self._parts[part.name] = part
        return part

    def names(self) -> list[str]:
        """All names, those of plugins included, sorted."""
        for point in entry_points(group=self.group):
            if point.name not in self._parts:
                self.register(point.load()())
        return sorted(self._parts)

    def get(self, name: str) -> T:
        """The part of that name.

        Raises:
            OptionError: there is none; the message lists them.
        """
        if name not in self.names():
            raise OptionError(f"there is no {self.kind} {name!r}; there are: {', '.join(self.names())}")
        return self._parts[name]

"""Named parts that third-party packages can add to: pruning methods, similarities and architectures."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, Protocol, TypeVar

from .errors import OptionError, reason


class Named(Protocol):
    """Anything with a name to be called by."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)
log = logging.getLogger(__name__)


class Registry(Generic[T]):
    """Parts of one `kind` by name; those of installed plugins are found through an entry point `group`.

    Args:
        kind: what a part is called in errors, such as "method".
        group: the group of entry points in which packages name their parts.

    Example:
        >>> from hf_metaprune.methods.method import METHODS
        >>> METHODS.get("ifp").options(ratio=0.8).steps
        1000

        A registry of another kind:

        >>> from types import SimpleNamespace
        >>> optimizers = Registry("optimizer", "my_package.optimizers")
        >>> optimizers.register(SimpleNamespace(name="sgd"))
        namespace(name='sgd')
        >>> optimizers.names(), list(optimizers.all())
        (['sgd'], [namespace(name='sgd')])
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self._parts: dict[str, T] = {}

    def register(self, part: T) -> T:
        """Make a part known by its name.

        Args:
            part: the part, such as a pruning method; it has a `name`.

        Returns:
            The part.

        Raises:
            OptionError: a part of this name is registered already.
        """
        if part.name in self._parts:
            raise OptionError(f"a {self.kind} named {part.name!r} is registered already")
        self._parts[part.name] = part
        return part

    def names(self) -> list[str]:
        """Return all names, those of plugins included, sorted; no plugin is loaded.

        Returns:
            The names in alphabetical order.
        """
        return sorted({*self._parts, *(point.name for point in entry_points(group=self.group))})

    def all(self) -> Iterator[T]:
        """Yield all parts: first the registered ones, then those of plugins, each loaded when its turn comes.

        A plugin that is broken is skipped, with a warning.

        Yields:
            The parts.
        """
        yield from list(self._parts.values())
        for name in self.names():
            if name in self._parts:
                continue
            try:
                yield self.get(name)
            except OptionError as error:
                log.warning("%s", error)

    def get(self, name: str) -> T:
        """Return the part of a name; a plugin is loaded when it is first asked for.

        Args:
            name: the name of a registered part, or of an installed plugin's entry point.

        Returns:
            The registered part, which all callers share.

        Raises:
            OptionError: there is no such part (the message lists the names), or its plugin is broken.
        """
        if name not in self._parts:
            points = [point for point in entry_points(group=self.group) if point.name == name]
            if not points:
                raise OptionError(f"there is no {self.kind} {name!r}; there are: {', '.join(self.names())}")
            self.register(self._load(points[0]))
        return self._parts[name]

    def _load(self, point: EntryPoint) -> T:
        try:
            part: T = point.load()()
            if part.name != point.name:
                raise ValueError(f"it calls itself {part.name!r}")
        except Exception as error:  # of others' code
            what = f"{self.kind} {point.name!r} ({point.value})"
            raise OptionError(f"{what} of an installed plugin cannot be used: {reason(error)}") from error
        return part

"""The voters: the entries that vote, and the trunk of their bank."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass

from ..bank.entry import Entry
from ..masks.mask import Mask
from ..similarity import Neighbor
from ..training.ridge import KnownClasses
from ..trunk.trunk import Trunk


@dataclass(frozen=True)
class ClassVotes:
    """What the entries of a bank know of a task's classes."""

    known: KnownClasses
    """The classes that an entry knows, and their means."""
    voters: tuple[Entry, ...]
    """The entries that told them."""


@dataclass(frozen=True)
class Voters:
    """The entries that vote, and how much the vote of each counts."""

    neighbors: tuple[Neighbor, ...] = ()
    """The entries that vote, nearest first."""
    runners_up: tuple[Neighbor, ...] = ()
    """The entries that have a score but do not vote, nearest first."""
    vote_weights: tuple[float, ...] | None = None
    """The weight of each neighbor's vote; None: all count the same."""
    trunk: Trunk | None = None
    """The bank's trunk, if units may start with its weights."""
    class_votes: ClassVotes | None = None
    """What entries know of the task's classes, if they are asked."""

    @property
    def entries(self) -> list[Entry]:
        """The entries of the neighbors."""
        return [neighbor.entry for neighbor in self.neighbors]

    def masks(self, sizes: Mapping[str, int]) -> list[Mask]:
        """Return the neighbors' masks, with layers that no entry prunes, such as the stem, kept whole.

        Args:
            sizes: units of each layer to prune, by name.
        """
        return [entry.mask.with_whole_layers(sizes) for entry in self.entries]

    def held_units(self, sizes: Mapping[str, int]) -> Mask:
        """Return the units that at least one neighbor keeps; there must be a neighbor.

        Args:
            sizes: units of each layer to prune, by name.
        """
        return functools.reduce(operator.or_, self.masks(sizes))

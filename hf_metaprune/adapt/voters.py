"""The entries that vote."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass

from ..bank.entry import Entry
from ..masks.mask import Mask
from ..similarity import Neighbor


@dataclass(frozen=True)
class Voters:
    """The nearest entries, nearest first, and how much the vote of each counts."""

    neighbors: tuple[Neighbor, ...] = ()
    runners_up: tuple[Neighbor, ...] = ()
    """Entries that were looked at, too, but do not vote, nearest first."""
    weights: tuple[float, ...] | None = None
    """How much each vote counts; None: all count the same."""

    @property
    def entries(self) -> list[Entry]:
        """The entries of the neighbors."""
        return [neighbor.entry for neighbor in self.neighbors]

    def masks(self, sizes: Mapping[str, int]) -> list[Mask]:
        """The neighbors' masks over the layers of `sizes`: no neighbor has pruned a stem."""
        return [entry.mask.with_whole_layers(sizes) for entry in self.entries]

    def held(self, sizes: Mapping[str, int]) -> Mask:
        """The units of the layers of `sizes` that some neighbor holds; there must be a neighbor."""
        return functools.reduce(operator.or_, self.masks(sizes))

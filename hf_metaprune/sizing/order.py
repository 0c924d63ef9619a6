"""How many units each layer keeps: by a ratio, by a ratio for each layer, or by scores over all layers together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np

from ..errors import OptionError
from ..masks.mask import Mask, keep_count
from ..masks.scores import ScoreMask
from ..models.architectures.architecture import PrunableLayer

Counts = dict[str, int]
"""Units to keep, by layer."""


@dataclass(frozen=True)
class Order:
    """The units of each layer from the first to stay to the last, and how much each matters.

    `units` are permutations (units,) by layer; `scores` are what layers are compared by when they share a budget, and
    `ties` what units of equal scores are.
    """

    units: dict[str, np.ndarray]
    scores: ScoreMask
    ties: ScoreMask | None = None

    def values(self, layer: str) -> np.ndarray:
        """What each unit of a layer is compared by, in the order they stay: float32 (2, units), scores and ties."""
        units = self.units[layer]
        ties = np.zeros(len(units), np.float32) if self.ties is None else self.ties[layer][units]
        return np.stack([self.scores[layer][units], ties])

    def mask(self, counts: Mapping[str, int]) -> Mask:
        """The mask that keeps the first units of each layer."""
        sizes = {name: len(units) for name, units in self.units.items()}
        return Mask({name: units[: counts[name]] for name, units in self.units.items()}, sizes)

    @classmethod
    def by_scores(cls, scores: ScoreMask, tie_break: Mapping[str, np.ndarray] | None = None) -> Order:
        """The highest score first; of equal ones the larger `tie_break`, then the lower index."""
        ties = None if tie_break is None else ScoreMask(tie_break).normalized("layer")
        second = {n: np.zeros(len(v)) for n, v in scores.items()} if ties is None else ties
        return cls({n: np.lexsort((-second[n], -values)) for n, values in scores.items()}, scores, ties)


@dataclass(frozen=True)
class Sizing:
    """How sizes are chosen.

    `split`: "layer" removes the same share of each layer, "global" the units that score lowest of all layers together.
    `exceptions` are ratios of single layers; `multiple` is what counts are rounded to, but for heads.
    """

    layers: Sequence[PrunableLayer]
    order: Order
    split: str = "layer"
    exceptions: Mapping[str, float] = field(default_factory=dict)
    multiple: int = 1

    def counts(self, ratio: float) -> Counts:
        """Units to keep where the share `ratio` of them goes; from 0 (all stay) to 1 (as few as can be)."""
        wanted = self._global(ratio) if self.split == "global" else self._even(ratio)
        return {layer.name: self._rounded(layer, wanted[layer.name]) for layer in self.layers}

    def _even(self, ratio: float) -> Counts:
        ratios = {layer.name: self.exceptions.get(layer.name, ratio) for layer in self.layers}
        return {
            layer.name: _least(layer) if ratios[layer.name] == 1 else keep_count(layer.size, ratios[layer.name])
            for layer in self.layers
        }

    def _global(self, ratio: float) -> Counts:
        fixed = self.exceptions
        counts = {name: count for name, count in self._even(ratio).items() if name in fixed}
        free, owners = self._ranked
        stay = np.bincount(owners[: round((1.0 - ratio) * len(owners))], minlength=len(free))
        return counts | {layer.name: max(_least(layer), int(n)) for layer, n in zip(free, stay, strict=True)}

    @cached_property
    def _ranked(self) -> tuple[list[PrunableLayer], np.ndarray]:
        """Layers that share the removal, and of all their units, the highest score first, the layer's number.

        Units stay in the order of their layer: none counts for more than those that stay before it.
        """
        free = [layer for layer in self.layers if layer.name not in self.exceptions]
        owners = np.repeat(np.arange(len(free)), [layer.size for layer in free])
        if not free:
            return free, owners
        in_order = [self.order.values(layer.name) for layer in free]
        scores = np.concatenate([np.minimum.accumulate(values[0]) for values in in_order])
        ties = np.concatenate([values[1] for values in in_order])
        places = np.concatenate([np.arange(layer.size) / layer.size for layer in free])
        return free, owners[np.lexsort((places, -ties, -scores))]

    @property
    def limits(self) -> str:
        """What keeps sizes from being smaller, for messages."""
        rounded = f", its widths rounded to {self.multiple}" if self.multiple > 1 else ""
        return rounded + (", its layer_ratios as they are" if self.exceptions else "")

    def step(self, layer: PrunableLayer) -> int:
        """How many units a layer grows by."""
        return 1 if any(axis.inner > 1 for axis in layer.axes) else self.multiple

    def _rounded(self, layer: PrunableLayer, count: int) -> int:
        multiple = self.step(layer)
        if multiple == 1 or count in (0, layer.size):
            return count
        return min(layer.size, max(multiple, round(count / multiple) * multiple))


def _least(layer: PrunableLayer) -> int:
    return 1 if layer.branch is None else 0


def layer_exceptions(texts: Sequence[str], layers: Sequence[PrunableLayer]) -> dict[str, float]:
    """Ratios by layer from texts such as ``layer1.*=0.5``, of which later ones win; 1 leaves as little as can be.

    Raises:
        OptionError: a text is malformed, its ratio lies outside [0, 1], or it names no layer.
    """
    found: dict[str, float] = {}
    for text in texts:
        pattern, _, value = text.rpartition("=")
        try:
            ratio = float(value)
        except ValueError:
            ratio = float("nan")
        if not pattern or not 0 <= ratio <= 1:
            raise OptionError(f"layer_ratios: {text!r} must be a layer and a ratio from 0 to 1, such as layer1.*=0.5")
        names = [layer.name for layer in layers if fnmatchcase(layer.name, pattern)]
        if not names:
            known = ", ".join(layer.name for layer in layers[:3])
            raise OptionError(f"layer_ratios: {pattern!r} names no prunable layer of the base, such as {known}")
        found |= dict.fromkeys(names, ratio)
    return found

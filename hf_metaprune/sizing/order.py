"""The order in which units stay, and how many units each layer keeps: by ratios, or by scores over all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np

from ..errors import OptionError
from ..masks.mask import Mask, keep_count
from ..masks.scores import ScoreMask
from ..models.architectures.layers import PrunableLayer

Counts = dict[str, int]
"""Units to keep, by layer."""


@dataclass(frozen=True)
class Order:
    """The order in which the units of each layer stay, the first to stay first.

    Example:
        >>> order = Order.from_scores(ScoreMask({"conv1": [0.1, 0.9, 0.5]}))
        >>> order.units["conv1"].tolist()
        [1, 2, 0]
        >>> order.mask({"conv1": 2})["conv1"].tolist()
        [1, 2]
    """

    units: dict[str, np.ndarray]
    """Unit indices in the order in which they stay: int64 (units,), a permutation, by layer."""
    scores: ScoreMask
    """How much each unit matters. Layers are compared by it when they share one ratio or budget."""
    ties: ScoreMask | None = None
    """What decides between units of equal scores; None: their indices."""

    def values(self, layer: str) -> np.ndarray:
        """Return the scores of a layer's units, and what decides between equal ones, in the order in which they stay.

        Returns:
            float32 (2, units).
        """
        units = self.units[layer]
        ties = np.zeros(len(units), np.float32) if self.ties is None else self.ties[layer][units]
        return np.stack([self.scores[layer][units], ties])

    def mask(self, counts: Mapping[str, int]) -> Mask:
        """Return the mask that keeps the first units of each layer.

        Args:
            counts: units to keep by layer.
        """
        sizes = {name: len(units) for name, units in self.units.items()}
        return Mask({name: units[: counts[name]] for name, units in self.units.items()}, sizes)

    @classmethod
    def from_scores(cls, scores: ScoreMask, tie_break: Mapping[str, np.ndarray] | None = None) -> Order:
        """Return the order in which the highest score comes first.

        Args:
            scores: the score of each unit.
            tie_break: scores (units,) by layer that order units of equal score, the highest first. Units that are equal
                in both are ordered by index.
        """
        ties = None if tie_break is None else ScoreMask(tie_break).normalized("layer")
        tie_values = {n: np.zeros(len(v)) for n, v in scores.items()} if ties is None else ties
        return cls({n: np.lexsort((-tie_values[n], -values)) for n, values in scores.items()}, scores, ties)


@dataclass(frozen=True)
class Sizing:
    """The rule by which a ratio becomes the size of each layer."""

    layers: Sequence[PrunableLayer]
    """The layers to prune."""
    order: Order
    """The order in which their units stay."""
    split: str = "layer"
    """Whether each layer loses the same share ("layer"), or all layers together the lowest scores ("global")."""
    exceptions: Mapping[str, float] = field(default_factory=dict)
    """Ratios of single layers, by name, in place of the common one."""
    multiple: int = 1
    """What the sizes are rounded to a multiple of. Numbers of heads are not rounded."""

    def counts(self, ratio: float) -> Counts:
        """Return the units to keep by layer.

        Args:
            ratio: share of units to remove, from 0 (keep all) to 1 (keep as few as possible).
        """
        counts = self._global_counts(ratio) if self.split == "global" else self._even_counts(ratio)
        return {layer.name: self._round(layer, counts[layer.name]) for layer in self.layers}

    def _even_counts(self, ratio: float) -> Counts:
        ratios = {layer.name: self.exceptions.get(layer.name, ratio) for layer in self.layers}
        return {
            layer.name: _min_count(layer) if ratios[layer.name] == 1 else keep_count(layer.size, ratios[layer.name])
            for layer in self.layers
        }

    def _global_counts(self, ratio: float) -> Counts:
        exceptions = {name: count for name, count in self._even_counts(ratio).items() if name in self.exceptions}
        layers, owners = self._ranked_units
        kept_counts = np.bincount(owners[: round((1.0 - ratio) * len(owners))], minlength=len(layers))
        return exceptions | {
            layer.name: max(_min_count(layer), int(n)) for layer, n in zip(layers, kept_counts, strict=True)
        }

    @cached_property
    def _ranked_units(self) -> tuple[list[PrunableLayer], np.ndarray]:
        """The layers without a ratio of their own, and the number of the layer of each of their units.

        The units are ranked, the highest score first. A unit's score counts for no more than the scores of the units
        that stay before it in its layer, so that the ranking keeps to the order within each layer.
        """
        layers = [layer for layer in self.layers if layer.name not in self.exceptions]
        owners = np.repeat(np.arange(len(layers)), [layer.size for layer in layers])
        if not layers:
            return layers, owners
        values_by_layer = [self.order.values(layer.name) for layer in layers]
        scores = np.concatenate([np.minimum.accumulate(values[0]) for values in values_by_layer])
        ties = np.concatenate([values[1] for values in values_by_layer])
        places = np.concatenate([np.arange(layer.size) / layer.size for layer in layers])
        return layers, owners[np.lexsort((places, -ties, -scores))]

    @property
    def limits_text(self) -> str:
        """What keeps sizes from being smaller, as the end of an error message."""
        rounding_text = f", its widths rounded to {self.multiple}" if self.multiple > 1 else ""
        return rounding_text + (", its layer_ratios as they are" if self.exceptions else "")

    def step(self, layer: PrunableLayer) -> int:
        """Return the number of units by which a layer may grow or shrink."""
        return 1 if any(axis.inner > 1 for axis in layer.axes) else self.multiple

    def _round(self, layer: PrunableLayer, count: int) -> int:
        multiple = self.step(layer)
        if multiple == 1 or count in (0, layer.size):
            return count
        return min(layer.size, max(multiple, round(count / multiple) * multiple))


def _min_count(layer: PrunableLayer) -> int:
    """Return the fewest units that a layer can keep: a branch that is added to the stream may lose all."""
    return 1 if layer.branch is None else 0


def layer_exceptions(texts: Sequence[str], layers: Sequence[PrunableLayer]) -> dict[str, float]:
    """Return the ratios of single layers from texts such as ``layer1.*=0.5``.

    Args:
        texts: a pattern of layer names, as of `fnmatch`, and a ratio in [0, 1]; 1 leaves as few units as possible. If
            several patterns match a layer, the last one counts.
        layers: the layers to prune.

    Returns:
        Ratios by layer name.

    Raises:
        OptionError: a text is malformed, its ratio lies outside [0, 1], or it names no layer.
    """
    exceptions: dict[str, float] = {}
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
            examples = ", ".join(layer.name for layer in layers[:3])
            raise OptionError(f"layer_ratios: {pattern!r} names no prunable layer of the base, such as {examples}")
        exceptions |= dict.fromkeys(names, ratio)
    return exceptions

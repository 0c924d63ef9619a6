"""Masks: which units of each prunable layer are kept. Nothing here knows a network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import FormatError, OptionError

MAX_LAYERS, MAX_UNITS, MAX_ALL_UNITS = 10_000, 1 << 20, 1 << 22
"""Most layers of a network, most units of one layer, and most units of all layers together.

The limits guard against files from strangers that would fill the memory. The largest networks have 300,000 units.
"""


def check_sizes(sizes: Mapping[str, Any]) -> None:
    """Check the numbers of units of layers that a stranger's file states.

    Raises:
        FormatError: there are too many layers or units, or a number is not a positive whole one.
    """
    if len(sizes) > MAX_LAYERS:
        raise FormatError(f"there are {len(sizes)} layers; at most {MAX_LAYERS} are read")
    for name, size in sizes.items():
        if type(size) is not int or not 0 < size <= MAX_UNITS:
            raise FormatError(f"layer {name[:60]!r} has {str(size)[:40]} units, not 1 to {MAX_UNITS}")
    if (total := sum(sizes.values())) > MAX_ALL_UNITS:
        raise FormatError(f"layers of {total} units together; at most {MAX_ALL_UNITS} are read")


def keep_count(size: int, ratio: float) -> int:
    """Return how many units a layer keeps at a pruning ratio: ``max(1, round((1 - ratio) * size))``.

    Args:
        size: units of the layer.
        ratio: share of units to remove, in [0, 1].

    Returns:
        The number of units to keep, at least 1.

    Example:
        >>> keep_count(64, 0.9)
        6
    """
    return max(1, round(round((1.0 - ratio) * size, 9)))  # the inner round removes the float error of 1 - ratio


class Mask(Mapping[str, np.ndarray]):
    """The kept units of every prunable layer, numbered as in the base model. A mask cannot be changed.

    A mask is a mapping from a layer's name to the indices of its kept units: int64 (kept units,), sorted, read-only.
    The papers call these indices Omega_l. The layers are in the order of ``sizes``.

    The operators work layer by layer: ``a & b`` keeps the units that both keep, ``a | b`` those that either keeps,
    ``a - b`` those of ``a`` that ``b`` does not keep, and ``~a`` those that ``a`` does not keep. ``a <= b`` asks
    whether ``b`` keeps every unit that ``a`` keeps.

    Args:
        kept: kept unit indices by layer: whole numbers, different from each other, in any order.
        sizes: units of each layer, kept or not, for the same layers as `kept`.

    Raises:
        OptionError: an index is outside its layer, repeated or not a whole number, a size is below 0, or the layers of
            `kept` and `sizes` differ.

    Example:
        >>> mask = Mask({"conv1": [0, 2], "conv2": [5]}, sizes={"conv1": 4, "conv2": 6})
        >>> mask
        Mask(2 layers, 3 of 10 units kept)
        >>> mask["conv1"]
        array([0, 2])
        >>> round(mask.iou(Mask({"conv1": [0, 1], "conv2": [5]}, mask.sizes)), 3)
        0.5
    """

    __slots__ = ("_hash", "_kept", "sizes")

    sizes: dict[str, int]
    """Units of each layer, kept or not, by name."""

    def __init__(self, kept: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
        if list(kept) != list(sizes):
            if set(kept) != set(sizes):
                raise OptionError(f"mask layers differ from the sizes' layers: {sorted(set(kept) ^ set(sizes))[:5]}")
            kept = {name: kept[name] for name in sizes}
        self.sizes = {name: int(size) for name, size in sizes.items()}
        if any(size < 0 for size in self.sizes.values()):
            raise OptionError("a layer cannot have fewer than 0 units")
        self._kept: dict[str, np.ndarray] = {}
        self._hash: int | None = None
        for name, indices in kept.items():
            array = np.asarray(indices).reshape(-1)
            if array.size and array.dtype.kind not in "iu":
                raise OptionError(f"layer {name}: kept units must be whole numbers, not {array.dtype} (see from_bools)")
            array = np.sort(array.astype(np.int64))
            if array.size and (array[0] < 0 or array[-1] >= self.sizes[name] or (np.diff(array) == 0).any()):
                raise OptionError(
                    f"layer {name}: kept units must be different numbers from 0 to {self.sizes[name] - 1}"
                )
            array.flags.writeable = False
            self._kept[name] = array

    @classmethod
    def full(cls, sizes: Mapping[str, int]) -> Mask:
        """Return the mask that keeps every unit.

        Args:
            sizes: units of each layer, by name.

        Returns:
            A mask over the layers of `sizes`.

        Example:
            >>> Mask.full({"conv1": 4})["conv1"]
            array([0, 1, 2, 3])
        """
        return cls({name: np.arange(size) for name, size in sizes.items()}, sizes)

    @classmethod
    def random(cls, sizes: Mapping[str, int], ratio: float, seed: int | np.random.Generator = 0) -> Mask:
        """Return a mask that keeps random units, `keep_count` of them in each layer.

        Args:
            sizes: units of each layer, by name.
            ratio: share of units to remove in each layer.
            seed: a seed, or a generator to draw from. The same seed gives the same mask.

        Returns:
            A mask over the layers of `sizes`.

        Example:
            >>> Mask.random({"conv1": 64, "conv2": 10}, ratio=0.9)
            Mask(2 layers, 7 of 74 units kept)
        """
        rng = np.random.default_rng(seed)
        return cls({n: rng.choice(s, keep_count(s, ratio), replace=False) for n, s in sizes.items()}, sizes)

    @classmethod
    def from_bools(cls, flags: Mapping[str, Any]) -> Mask:
        """Return the mask of boolean flags.

        Args:
            flags: bool (units,) by layer, True for a kept unit.

        Returns:
            A mask over the layers of `flags`, in their order.

        Example:
            >>> Mask.from_bools({"conv1": [True, False, True]})["conv1"]
            array([0, 2])
        """
        arrays = {name: np.asarray(flag, dtype=bool) for name, flag in flags.items()}
        return cls({n: np.flatnonzero(a) for n, a in arrays.items()}, {n: len(a) for n, a in arrays.items()})

    def to_bools(self) -> dict[str, np.ndarray]:
        """Return the mask as one flag per unit.

        Returns:
            New arrays, bool (units,) by layer, True for a kept unit.

        Example:
            >>> Mask({"conv1": [0, 2]}, {"conv1": 4}).to_bools()["conv1"]
            array([ True, False,  True, False])
        """
        return {name: np.isin(np.arange(size), self._kept[name]) for name, size in self.sizes.items()}

    def __getitem__(self, layer: str) -> np.ndarray:
        return self._kept[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return self.sizes == other.sizes and all(np.array_equal(self[n], other[n]) for n in self)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.digest())
        return self._hash

    def _repr_html_(self) -> str:
        from ..drawing.cells import cell
        from ..drawing.pages import svg_markup
        from ..drawing.style import svg
        from ..drawing.units import units_figure
        from ..text import quantity

        summary = f"{self.n_kept:,} of {self.n_units:,} units stay, in {quantity(len(self), 'layer')}."
        picture = svg(units_figure(self, self.sizes), f"Units kept by layer: {summary}")
        return cell("Mask", summary=[summary], svg=svg_markup(picture))

    def __repr__(self) -> str:
        return f"Mask({len(self)} layers, {self.n_kept} of {self.n_units} units kept)"

    @property
    def n_units(self) -> int:
        """Number of units in all layers together, kept or not."""
        return sum(self.sizes.values())

    @property
    def n_kept(self) -> int:
        """Number of kept units in all layers together."""
        return sum(len(units) for units in self._kept.values())

    @property
    def ratio(self) -> float:
        """Share of all units that is removed, in [0, 1]."""
        return 1.0 - self.n_kept / max(1, self.n_units)

    def _combine(self, other: Mask, op: Any) -> Mask:
        self._check_same_layers(other)
        return Mask({n: op(self[n], other[n]) for n in self}, self.sizes)

    def _check_same_layers(self, other: Mask) -> None:
        if self.sizes != other.sizes:
            raise OptionError("the masks belong to different networks: their layers or sizes differ")

    def __and__(self, other: Mask) -> Mask:
        return self._combine(other, np.intersect1d)

    def __or__(self, other: Mask) -> Mask:
        return self._combine(other, np.union1d)

    def __sub__(self, other: Mask) -> Mask:
        return self._combine(other, np.setdiff1d)

    def __invert__(self) -> Mask:
        return Mask.full(self.sizes) - self

    def __le__(self, other: Mask) -> bool:
        """Return whether every unit kept here is kept in `other` too."""
        self._check_same_layers(other)
        return all(np.isin(self[n], other[n]).all() for n in self)

    def iou_per_layer(self, other: Mask) -> dict[str, float]:
        """Return the intersection over union of the kept units of each layer (MVP, Section 3.2).

        Args:
            other: a mask of the same layers.

        Returns:
            A number in [0, 1] by layer; 1 if both masks keep no unit of it.

        Raises:
            OptionError: the masks have different layers or sizes.

        Example:
            >>> Mask({"conv1": [0, 2]}, {"conv1": 4}).iou_per_layer(Mask({"conv1": [2]}, {"conv1": 4}))
            {'conv1': 0.5}
        """
        both, either = self & other, self | other
        return {n: len(both[n]) / len(either[n]) if len(either[n]) else 1.0 for n in self}

    def iou(self, other: Mask) -> float:
        """Return the intersection over union of the kept units of all layers together.

        Args:
            other: a mask of the same layers.

        Returns:
            A number in [0, 1].

        Raises:
            OptionError: the masks have different layers or sizes.
        """
        return (self & other).n_kept / max(1, (self | other).n_kept)

    def with_whole_layers(self, sizes: Mapping[str, int]) -> Mask:
        """Return this mask over the layers of `sizes`, with every unit kept in layers that this mask lacks.

        Args:
            sizes: units of each layer of the result, by name.
        """
        return Mask({name: self[name] if name in self else np.arange(size) for name, size in sizes.items()}, sizes)

    def positions_in(self, outer: Mask) -> dict[str, np.ndarray]:
        """Return the positions of the kept units among the kept units of `outer`.

        Args:
            outer: a mask that keeps at least the units of this one.

        Returns:
            int64 (kept units,) by layer, sorted.

        Raises:
            OptionError: a unit kept here is not kept in `outer`.

        Example:
            >>> outer = Mask({"conv1": [1, 3, 4]}, {"conv1": 6})
            >>> Mask({"conv1": [3]}, {"conv1": 6}).positions_in(outer)["conv1"]
            array([1])
        """
        if not self <= outer:
            raise OptionError("a mask can only be sliced out of a network that holds all its units")
        return {n: np.searchsorted(outer[n], self[n]) for n in self}

    def pack(self) -> dict[str, dict[str, Any]]:
        """Return the mask as values that JSON can hold.

        Returns:
            ``{layer: {"size": units, "kept": kept units, "bits": bitmap}}``. The bitmap has one bit per unit, the first
            unit in the highest bit of the first byte, and is written in base64.

        Example:
            >>> Mask({"conv1": [0, 2]}, {"conv1": 4}).pack()
            {'conv1': {'size': 4, 'kept': 2, 'bits': 'oA=='}}
        """
        return {
            name: {
                "size": self.sizes[name],
                "kept": len(self[name]),
                "bits": base64.b64encode(np.packbits(flags).tobytes()).decode("ascii"),
            }
            for name, flags in self.to_bools().items()
        }

    @classmethod
    def unpack(cls, packed_layers: Mapping[str, Mapping[str, Any]]) -> Mask:
        """Return the mask that `pack` has turned into JSON values.

        Args:
            packed_layers: what `pack` returns.

        Returns:
            A mask that equals the packed one.

        Raises:
            FormatError: an entry is missing or cannot be decoded, or a size, a bitmap's length, its padding bits or its
                number of ones is wrong.

        Example:
            >>> Mask.unpack({"conv1": {"size": 4, "kept": 2, "bits": "oA=="}})["conv1"]
            array([0, 2])
        """
        if not isinstance(packed_layers, Mapping):
            raise FormatError("masks: expected a mapping from layer to {size, kept, bits}")
        try:
            check_sizes(
                {str(n): part.get("size") if isinstance(part, Mapping) else None for n, part in packed_layers.items()}
            )
        except FormatError as error:
            raise FormatError(f"masks: {error}") from error
        flags = {}
        for name, layer in packed_layers.items():
            try:
                size, kept, bits = layer["size"], layer["kept"], layer["bits"]
                raw = np.frombuffer(base64.b64decode(bits, validate=True), dtype=np.uint8)
            except (KeyError, TypeError, ValueError) as error:
                raise FormatError(f"mask of layer {name!r} cannot be read: {error}") from error
            if len(raw) != (size + 7) // 8:
                raise FormatError(f"mask of layer {name!r}: a bitmap of {len(raw)} bytes does not fit size {size!r}")
            ones = np.unpackbits(raw)
            if ones[size:].any() or type(kept) is not int or ones.sum() != kept:
                raise FormatError(f"mask of layer {name!r}: the bitmap has {int(ones.sum())} ones, not {kept!r}")
            flags[str(name)] = ones[:size].astype(bool)
        return cls.from_bools(flags)

    def digest(self) -> str:
        """Return the SHA-256 of the packed mask as canonical JSON.

        Returns:
            64 hexadecimal digits, the same on every machine.

        Example:
            >>> Mask({"conv1": [0, 2]}, {"conv1": 4}).digest()[:8]
            'd469b97c'
        """
        canonical = json.dumps(self.pack(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

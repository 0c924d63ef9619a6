"""Masks: which units of each prunable layer are kept. Nothing here knows a network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import FormatError, OptionError

MAX_UNITS = 1 << 20  # of one layer; guards the unpacking of masks from strangers


def keep_count(size: int, ratio: float) -> int:
    """Units that a layer of `size` units keeps at pruning ratio `ratio`: ``max(1, round((1 - ratio) * size))``."""
    return max(1, round(round((1.0 - ratio) * size, 9)))


class Mask(Mapping[str, np.ndarray]):
    """Kept unit indices of every prunable layer, numbered as in the base model; immutable.

    Reads as a mapping from a layer's name to its kept indices (int64, sorted, read-only); ``sizes`` has each
    layer's unit count. Layers keep the order they were given in. Omega_l in the papers.

    Raises:
        OptionError: indices outside a layer, repeated, or layers that do not match ``sizes``.
    """

    __slots__ = ("_hash", "_kept", "sizes")

    def __init__(self, kept: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
        if list(kept) != list(sizes):
            if set(kept) != set(sizes):
                raise OptionError(f"mask layers differ from the sizes' layers: {sorted(set(kept) ^ set(sizes))[:5]}")
            kept = {name: kept[name] for name in sizes}
        self.sizes: dict[str, int] = {name: int(size) for name, size in sizes.items()}
        if any(size < 0 for size in self.sizes.values()):
            raise OptionError("a layer cannot have fewer than 0 units")
        self._kept: dict[str, np.ndarray] = {}
        self._hash: int | None = None
        for name, indices in kept.items():
            given = np.asarray(indices).reshape(-1)
            if given.size and given.dtype.kind not in "iu":
                raise OptionError(f"layer {name}: kept units must be whole numbers, not {given.dtype} (see from_bools)")
            array = np.sort(given.astype(np.int64))
            if array.size and (array[0] < 0 or array[-1] >= self.sizes[name] or (np.diff(array) == 0).any()):
                raise OptionError(
                    f"layer {name}: kept units must be different numbers from 0 to {self.sizes[name] - 1}"
                )
            array.flags.writeable = False
            self._kept[name] = array

    @classmethod
    def full(cls, sizes: Mapping[str, int]) -> Mask:
        """The mask that keeps every unit."""
        return cls({name: np.arange(size) for name, size in sizes.items()}, sizes)

    @classmethod
    def random(cls, sizes: Mapping[str, int], ratio: float, seed: int | np.random.Generator = 0) -> Mask:
        """A mask that keeps a uniformly random `keep_count` of units in each layer."""
        rng = np.random.default_rng(seed)
        return cls({n: rng.choice(s, keep_count(s, ratio), replace=False) for n, s in sizes.items()}, sizes)

    @classmethod
    def from_bools(cls, flags: Mapping[str, Any]) -> Mask:
        """From one boolean array per layer, True for kept."""
        arrays = {name: np.asarray(flag, dtype=bool) for name, flag in flags.items()}
        return cls({n: np.flatnonzero(a) for n, a in arrays.items()}, {n: len(a) for n, a in arrays.items()})

    def to_bools(self) -> dict[str, np.ndarray]:
        """One boolean array per layer, True for kept."""
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
        from ..drawing.pages import drawn
        from ..drawing.style import svg
        from ..drawing.units import units_figure
        from ..text import counted

        said = f"{self.n_kept:,} of {self.n_units:,} units stay, in {counted(len(self), 'layer')}."
        picture = svg(units_figure(self, self.sizes), f"Units kept by layer: {said}")
        return cell("Mask", summary=[said], svg=drawn(picture))

    def __repr__(self) -> str:
        return f"Mask({len(self)} layers, {self.n_kept} of {self.n_units} units kept)"

    @property
    def n_units(self) -> int:
        """Units in all layers together."""
        return sum(self.sizes.values())

    @property
    def n_kept(self) -> int:
        """Kept units in all layers together."""
        return sum(len(kept) for kept in self._kept.values())

    @property
    def ratio(self) -> float:
        """Share of all units that is removed."""
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
        """Whether every unit kept here is kept in `other` too."""
        self._check_same_layers(other)
        return all(np.isin(self[n], other[n]).all() for n in self)

    def iou_per_layer(self, other: Mask) -> dict[str, float]:
        """Intersection over union of the kept units, layer by layer (MVP, Section 3.2); 1 where both are empty."""
        both, either = self & other, self | other
        return {n: len(both[n]) / len(either[n]) if len(either[n]) else 1.0 for n in self}

    def iou(self, other: Mask) -> float:
        """Intersection over union of the kept units of all layers together."""
        return (self & other).n_kept / max(1, (self | other).n_kept)

    def with_whole_layers(self, sizes: Mapping[str, int]) -> Mask:
        """The mask over the layers of `sizes`, of which those that it lacks are kept whole."""
        return Mask({name: self[name] if name in self else np.arange(size) for name, size in sizes.items()}, sizes)

    def positions_in(self, outer: Mask) -> dict[str, np.ndarray]:
        """Where each kept unit stands among the kept units of `outer`.

        Raises:
            OptionError: a unit kept here is not kept in `outer`.
        """
        if not self <= outer:
            raise OptionError("a mask can only be sliced out of a network that holds all its units")
        return {n: np.searchsorted(outer[n], self[n]) for n in self}

    def pack(self) -> dict[str, dict[str, Any]]:
        """``{layer: {size, kept, bits}}``: unit count, kept count, base64 of the bitmap (first unit: highest bit)."""
        return {
            name: {
                "size": self.sizes[name],
                "kept": len(self[name]),
                "bits": base64.b64encode(np.packbits(flags).tobytes()).decode("ascii"),
            }
            for name, flags in self.to_bools().items()
        }

    @classmethod
    def unpack(cls, packed: Mapping[str, Mapping[str, Any]]) -> Mask:
        """The inverse of `pack`.

        Raises:
            FormatError: a size, a bitmap's length, its padding or its count of ones is wrong.
        """
        if not isinstance(packed, Mapping):
            raise FormatError("masks: expected a mapping from layer to {size, kept, bits}")
        flags = {}
        for name, layer in packed.items():
            try:
                size, kept, bits = layer["size"], layer["kept"], layer["bits"]
                raw = np.frombuffer(base64.b64decode(bits, validate=True), dtype=np.uint8)
            except (KeyError, TypeError, ValueError) as error:
                raise FormatError(f"mask of layer {name!r} cannot be read: {error}") from error
            if type(size) is not int or not 0 < size <= MAX_UNITS or len(raw) != (size + 7) // 8:
                raise FormatError(f"mask of layer {name!r}: a bitmap of {len(raw)} bytes does not fit size {size!r}")
            ones = np.unpackbits(raw)
            if ones[size:].any() or type(kept) is not int or ones.sum() != kept:
                raise FormatError(f"mask of layer {name!r}: the bitmap has {int(ones.sum())} ones, not {kept!r}")
            flags[str(name)] = ones[:size].astype(bool)
        return cls.from_bools(flags)

    def digest(self) -> str:
        """sha256 of the packed mask as canonical JSON, in hex; the same on every machine."""
        canonical = json.dumps(self.pack(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

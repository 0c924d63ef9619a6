"""What can be pruned in an architecture: layers, where their units' parameters lie, and who knows which network.

A new architecture is one file with one `Architecture` subclass that ends in ``register(...)``. Everything else
here and above (slicing, averaging, importance, checks) works from the `PrunableLayer` list alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ..errors import ArchitectureError, OptionError
from ..masks import Mask


@dataclass(frozen=True)
class Axis:
    """Where the units of a layer lie in one tensor.

    Dimension `dim` of `tensor` has ``outer * n_units * inner`` entries; unit k owns the entries
    ``(o * n_units + k) * inner + i``. A conv's filters have outer = inner = 1; the heads of a fused qkv
    projection have outer = 3 and inner = the head's width.
    """

    tensor: str
    dim: int
    outer: int = 1
    inner: int = 1

    def indices(self, kept: np.ndarray, size: int) -> np.ndarray:
        """Entries along `dim` that belong to the units `kept` of a layer with `size` units, in order."""
        blocks = np.arange(self.outer)[:, None, None] * size + kept[None, :, None]
        return (blocks * self.inner + np.arange(self.inner)[None, None, :]).reshape(-1)


@dataclass(frozen=True)
class PrunableLayer:
    """A layer whose units can be removed: its name (module path in the base), unit count, and parameters.

    `axes` lists every tensor that loses entries with a unit, as output or as input. `output` is the module
    whose output carries one channel (dim 1) per unit: activations are measured there. `gates` are the parameters
    (one entry a unit) in which the unit's output is linear: at zero the unit is gone, which is what a mask means.
    `filters` is the weight whose dim 0 makes the units. `writer` names the module whose output is added into the
    residual stream and must be put back in place there, if any.
    """

    name: str
    size: int
    axes: tuple[Axis, ...]
    output: str
    gates: tuple[str, ...]
    filters: str
    writer: str | None = None


class Architecture(ABC):
    """One family of networks: how to recognise it, build it, and list its prunable layers."""

    library: ClassVar[str]
    """``timm`` or ``transformers``."""
    family: ClassVar[str]
    """Short name, unique within the library."""

    @abstractmethod
    def matches(self, architecture: str) -> bool:
        """Whether this family has a network of that name (timm model name, transformers class name)."""

    @abstractmethod
    def recognises(self, network: nn.Module) -> bool:
        """Whether `network` is of this family."""

    @abstractmethod
    def build(self, architecture: str, model_args: Mapping[str, Any], num_classes: int) -> nn.Module:
        """An untrained network, on torch's current default device.

        Raises:
            ArchitectureError: arguments that are unknown or not accepted from a config file.
        """

    @abstractmethod
    def layers(self, network: nn.Module) -> list[PrunableLayer]:
        """The prunable layers of an unsliced network, in forward order.

        Raises:
            ArchitectureError: a part that cannot be pruned exactly, by name.
        """

    @abstractmethod
    def features(self, network: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the classifier sees: float (batch, features), sliced or not."""

    @abstractmethod
    def classifier_name(self, network: nn.Module) -> str:
        """Module path of the final ``nn.Linear``."""

    def classifier(self, network: nn.Module) -> nn.Linear:
        """The final linear layer itself."""
        found: Any = network
        for part in self.classifier_name(network).split("."):  # get_submodule stops torch.compile before torch 2.7
            found = getattr(found, part)
        return found

    def stem_names(self, network: nn.Module) -> tuple[str, ...]:
        """Module paths of what comes before the first prunable layer; training may freeze it."""
        return ()

    @abstractmethod
    def describe(self, network: nn.Module) -> tuple[str, dict[str, Any]]:
        """``(architecture, model_args)`` from which `build` makes the same network again."""


_FAMILIES: list[Architecture] = []


def register(family: Architecture) -> Architecture:
    """Make a family known; a second one of the same library and name is refused."""
    if any((f.library, f.family) == (family.library, family.family) for f in _FAMILIES):
        raise OptionError(f"architecture {family.library}/{family.family} is registered already")
    _FAMILIES.append(family)
    return family


def families() -> list[Architecture]:
    """All families, in the order of their registration."""
    from . import timm_resnet, transformers_resnet  # noqa: F401  (each registers its families)

    return _FAMILIES


def supported() -> str:
    """The supported families, for messages."""
    return ", ".join(f"{f.library}/{f.family}" for f in families())


def find_architecture(library: str, architecture: str) -> Architecture:
    """The family that has a network of this name.

    Raises:
        ArchitectureError: none has; the message lists what is supported.
    """
    for family in families():
        if family.library == library and family.matches(architecture):
            return family
    raise ArchitectureError(f"{library} architecture {architecture!r} is not supported; supported: {supported()}")


def architecture_of(network: nn.Module) -> Architecture:
    """The family a network belongs to.

    Raises:
        ArchitectureError: none; the message lists what is supported.
    """
    for family in families():
        if family.recognises(network):
            return family
    name = f"{type(network).__module__}.{type(network).__name__}"
    raise ArchitectureError(f"{name} is not supported; supported: {supported()}")


def layer_sizes(layers: list[PrunableLayer]) -> dict[str, int]:
    """Unit counts by layer name, as a `Mask` wants them."""
    return {layer.name: layer.size for layer in layers}


def tensor_axes(layers: list[PrunableLayer]) -> dict[str, list[tuple[Axis, PrunableLayer]]]:
    """For each tensor that pruning touches, its axes with their layers."""
    table: dict[str, list[tuple[Axis, PrunableLayer]]] = {}
    for layer in layers:
        for axis in layer.axes:
            table.setdefault(axis.tensor, []).append((axis, layer))
    return table


def kept_indices(axes: list[tuple[Axis, PrunableLayer]], mask: Mask) -> dict[int, np.ndarray]:
    """For one tensor: the base's entries that `mask` keeps, by dimension."""
    return {axis.dim: axis.indices(mask[layer.name], layer.size) for axis, layer in axes}

"""What can be pruned in an architecture: layers, where their units' parameters lie, and who knows which network.

A new architecture is one file with one `Architecture` subclass that ends in ``register(...)``. Everything else
here and above (slicing, averaging, importance, checks) works from the `PrunableLayer` list alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ...errors import ArchitectureError
from ...masks.mask import Mask
from ..weights import check_fit
from .model_args import Rule
from .recipe import CONVOLUTIONAL, Recipe


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

    def by_unit(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor's entries over each unit that it holds: (units,)."""
        rest = values.movedim(self.dim, 0).flatten(1).sum(1) if values.ndim > 1 else values
        return rest.view(self.outer, -1, self.inner).sum((0, 2))

    def spread(self, scores: torch.Tensor, ndim: int) -> torch.Tensor:
        """A number for each unit, (units,), as a tensor of `ndim` dimensions to multiply this one by."""
        along = scores[None, :, None].expand(self.outer, -1, self.inner).reshape(-1)
        return along.view([-1 if dim == self.dim else 1 for dim in range(ndim)])


@dataclass(frozen=True)
class Probe:
    """Where the activations of a layer's units are seen: at a module's output, or input.

    Dimension `dim` has `inner` entries a unit, one unit after the other.
    """

    module: str
    dim: int = 1
    inner: int = 1
    at_input: bool = False


@dataclass(frozen=True)
class Counter:
    """A number that a module keeps for itself, and that changes with its units: `per_unit` for each.

    One that this version of the library does not have is none.
    """

    module: str
    attribute: str
    per_unit: int = 1


@dataclass(frozen=True)
class Branch:
    """What becomes of a branch of the residual stream that has no unit left: a constant.

    The module `module` is taken out, and of its tensors only `bias` stays, if there is one (by its path inside); nor is
    `norm` left, which nothing else reads. `as_tuple`: whether the module's output is the first of several.
    """

    module: str
    bias: str | None
    norm: str
    as_tuple: bool = False

    def removes(self, tensor: str) -> bool:
        """Whether a tensor of the network is gone with the branch's last unit."""
        if tensor == f"{self.module}.{self.bias}":
            return False
        return tensor.startswith((f"{self.module}.", f"{self.norm}."))


@dataclass(frozen=True)
class Adder:
    """A block that adds a writer's output into the stream, and the class that does so at the kept places only."""

    module: str
    kind: type[nn.Module]


@dataclass(frozen=True)
class PrunableLayer:
    """A layer whose units can be removed: its name (module path in the base), unit count, and parameters.

    `axes` lists every tensor that loses entries with a unit, as output or as input. `probe` says where activations are
    measured. `gates` are the entries in which the unit's output is linear: at zero the unit is gone, which is what
    a mask means. `filters` are those that compute it. `counters` are numbers to keep right. `writer` names the batch
    norm whose output is added into the residual stream and must be put back in place there, if any; `adder` is the
    block that adds it, where that block can leave the places of removed units alone. A layer with a `branch` may lose
    all of its units; of another one, one at least stays.
    """

    name: str
    size: int
    axes: tuple[Axis, ...]
    probe: Probe
    gates: tuple[Axis, ...]
    filters: tuple[Axis, ...]
    counters: tuple[Counter, ...] = ()
    writer: str | None = None
    adder: Adder | None = None
    branch: Branch | None = None


class Architecture(ABC):
    """One family of networks: how to recognize it, build it, and list its prunable layers."""

    library: ClassVar[str]
    """``timm`` or ``transformers``."""
    family: ClassVar[str]
    """Short name, unique within the library."""
    model_args: ClassVar[Mapping[str, Rule]]
    """Arguments of networks that a config file may carry, each with what it may be; any other is refused."""
    recipe: ClassVar[Recipe] = CONVOLUTIONAL
    """How such networks are fine-tuned."""
    ignored: ClassVar[tuple[str, ...]] = ()
    """Beginnings of the names of tensors that a base may have, and that no sub-network needs."""

    @property
    def name(self) -> str:
        """What the registry, and a plugin's entry point, calls it: ``timm-resnet``."""
        return f"{self.library}-{self.family}"

    @property
    @abstractmethod
    def covers(self) -> str:
        """Which networks of the library, for messages."""

    @abstractmethod
    def matches(self, architecture: str) -> bool:
        """Whether this family has a network of that name (timm model name, transformers class name)."""

    @abstractmethod
    def recognizes(self, network: nn.Module) -> bool:
        """Whether `network` is of this family."""

    @abstractmethod
    def build(self, architecture: str, model_args: Mapping[str, Any], num_classes: int) -> nn.Module:
        """An untrained network, on torch's current default device.

        Raises:
            ArchitectureError: arguments that are unknown or not accepted from a config file.
        """

    def load(
        self, architecture: str, model_args: Mapping[str, Any], num_classes: int, state: Mapping[str, torch.Tensor]
    ) -> nn.Module:
        """A network with the tensors of `state`, on the CPU; no memory is taken for more than those.

        Raises:
            ArchitectureError: as of `build`. FormatError: the tensors are not those of the network.
        """
        with torch.device("meta"):
            network = self.build(architecture, model_args, num_classes)
        shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
        check_fit(
            architecture,
            reshaped=[name for name, shape in shapes.items() if name in state and state[name].shape != shape],
            missing=[name for name in shapes if name not in state],
            unexpected=[name for name in state if name not in shapes],
        )
        network.to_empty(device="cpu")
        network.load_state_dict(state)
        return network

    @abstractmethod
    def layers(self, network: nn.Module) -> list[PrunableLayer]:
        """The prunable layers of an unsliced network, in forward order.

        Raises:
            ArchitectureError: a part that cannot be pruned exactly, by name.
        """

    def stem_layers(self, network: nn.Module) -> list[PrunableLayer]:
        """Layers before the first branch, of which the last writes into the stream; pruned only where that is asked."""
        return []

    def all_layers(self, network: nn.Module, stem: bool) -> list[PrunableLayer]:
        """The prunable layers, those of the stem first, if it is to be pruned, too.

        Raises:
            ArchitectureError: a part cannot be pruned exactly, or the stem cannot be pruned.
        """
        first = self.stem_layers(network) if stem else []
        if stem and not first:
            raise ArchitectureError(f"the stem of {self.library}/{self.family} cannot be pruned")
        return [*first, *self.layers(network)]

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


def removed_tensors(names: Iterable[str], layers: list[PrunableLayer], mask: Mask) -> set[str]:
    """Of tensors of a full network by name: those that a sub-network lacks, since a whole branch is gone."""
    gone = [layer.branch for layer in layers if layer.branch is not None and not len(mask[layer.name])]
    return {name for name in names if any(branch.removes(name) for branch in gone)} if gone else set()


def kept_indices(axes: list[tuple[Axis, PrunableLayer]], mask: Mask) -> dict[int, np.ndarray]:
    """For one tensor: the base's entries that `mask` keeps, by dimension."""
    return {axis.dim: axis.indices(mask[layer.name], layer.size) for axis, layer in axes}

"""The interface of architectures: how to recognize and build a network, and which of its layers can be pruned.

A new architecture is one file with one `Architecture` subclass that ends in ``register(...)``.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import nn

from ...errors import ArchitectureError
from ..copying import copy_empty
from ..weights import check_fit
from .layers import PrunableLayer
from .model_args import Rule
from .recipe import CONVOLUTIONAL, Recipe


@lru_cache(maxsize=8)
def _build_empty(
    family: Architecture, architecture: str, model_args: str, num_classes: int, dtype: torch.dtype
) -> nn.Module:
    """Build a network on the meta device, which callers share and must not change.

    `dtype` is torch's default dtype, as a part of the cache's key.
    """
    assert dtype == torch.get_default_dtype()  # transformers changes it while it loads a model
    with torch.device("meta"):
        return family.build(architecture, json.loads(model_args), num_classes)


class Architecture(ABC):
    """A family of networks: how to recognize one, how to build it, and which of its layers can be pruned.

    A plugin derives a class, implements the abstract methods, and registers one instance. A complete class
    is in docs/howto/add-an-architecture.md.

    Example:
        The family of a base, and the layers that it finds in the base's network::

            family = base.family
            print(family.name, family.covers)
            print([(layer.name, layer.size) for layer in family.layers(base.network)])

        What else a family knows about a network::

            family, network = base.family, base.network
            print(family.recognizes(network), family.matches(base.architecture))
            print(family.classifier_name(network), family.classifier(network).out_features)
            print(family.stem_names(network), len(family.stem_layers(network)), family.stages(network))
            print(len(family.all_layers(network, stem=True)))
            architecture, model_args = family.describe(network)
            untrained = family.build(architecture, model_args, num_classes=3)
            empty = family.build_empty(architecture, model_args, num_classes=3)  # shapes only
            copy = family.load(architecture, model_args, 3, untrained.state_dict())
            print(family.features(copy.eval(), pixels).shape)
    """

    library: ClassVar[str]
    """``timm`` or ``transformers``."""
    family: ClassVar[str]
    """Short name, unique within the library."""
    model_args: ClassVar[Mapping[str, Rule]]
    """Arguments of networks that a config file may carry, each with a rule for its value; others are refused."""
    recipe: ClassVar[Recipe] = CONVOLUTIONAL
    """How networks of the family are fine-tuned."""
    stage_pattern: ClassVar[str] = ""
    """Pattern of the paths of the modules that each end a stage: their output is the whole stream of features."""
    ignored: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the names of tensors that a base may have and that no sub-network needs."""

    @property
    def name(self) -> str:
        """Name in the registry and of a plugin's entry point, such as ``timm-resnet``."""
        return f"{self.library}-{self.family}"

    @property
    @abstractmethod
    def covers(self) -> str:
        """Networks of the library that belong to the family, for messages."""

    @abstractmethod
    def matches(self, architecture: str) -> bool:
        """Return whether the family has a network of that name.

        Args:
            architecture: a timm model name, or the name of a transformers class.

        Returns:
            True if `build` can make it.
        """

    @abstractmethod
    def recognizes(self, network: nn.Module) -> bool:
        """Return whether `network` belongs to the family.

        Args:
            network: any network.

        Returns:
            True if the methods of the family understand it.
        """

    @abstractmethod
    def build(self, architecture: str, model_args: Mapping[str, Any], num_classes: int) -> nn.Module:
        """Build an untrained network on torch's current default device.

        Args:
            architecture: a timm model name, or the name of a transformers class.
            model_args: arguments of the network, each checked by its rule in `model_args`.
            num_classes: number of outputs of the classifier.

        Returns:
            The network.

        Raises:
            ArchitectureError: an argument has no rule, or its value is refused.
        """

    def build_empty(self, architecture: str, model_args: Mapping[str, Any], num_classes: int) -> nn.Module:
        """Build a network on torch's meta device, where tensors have shapes and no data.

        A network that was built before is copied, which takes a tenth of the time.

        Args:
            architecture: a timm model name, or the name of a transformers class.
            model_args: arguments of the network, of JSON's types, each checked by its rule in `model_args`.
            num_classes: number of outputs of the classifier.

        Returns:
            The network, whose tensors have no data.

        Raises:
            ArchitectureError: an argument has no rule, or its value is refused.
        """
        values = dict(model_args) if isinstance(model_args, Mapping) else model_args  # which `build` refuses
        arguments = json.dumps(values, sort_keys=True, default=str)
        return copy_empty(_build_empty(self, architecture, arguments, num_classes, torch.get_default_dtype()))

    def load(
        self, architecture: str, model_args: Mapping[str, Any], num_classes: int, state: Mapping[str, torch.Tensor]
    ) -> nn.Module:
        """Build a network on the CPU with the tensors of `state`; no memory is taken beyond theirs.

        Args:
            architecture: a timm model name, or the name of a transformers class.
            model_args: arguments of the network, each checked by its rule in `model_args`.
            num_classes: number of outputs of the classifier.
            state: all tensors of the network by name.

        Returns:
            The network.

        Raises:
            ArchitectureError: an argument has no rule, or its value is refused.
            FormatError: the tensors are not those of the network.
        """
        network = self.build_empty(architecture, model_args, num_classes)
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
        """Return the prunable layers of an unsliced network, in forward order.

        Args:
            network: an unsliced network of the family.

        Returns:
            A description of each layer, with all tensors that lose entries with its units.

        Raises:
            ArchitectureError: a part cannot be pruned exactly; the message names it.
        """

    def stem_layers(self, network: nn.Module) -> list[PrunableLayer]:
        """Return the layers before the first branch, of which the last writes into the stream.

        They are pruned only if the user asks for it.

        Args:
            network: an unsliced network of the family.

        Returns:
            A description of each layer; none if the family's stem cannot be pruned.
        """
        return []

    def all_layers(self, network: nn.Module, stem: bool) -> list[PrunableLayer]:
        """Return the prunable layers in forward order.

        Args:
            network: an unsliced network of the family.
            stem: whether the layers of the stem are pruned, too; they come first then.

        Returns:
            A description of each layer.

        Raises:
            ArchitectureError: a part cannot be pruned exactly, or the stem cannot be pruned.
        """
        stem_layers = self.stem_layers(network) if stem else []
        if stem and not stem_layers:
            raise ArchitectureError(f"the stem of {self.library}/{self.family} cannot be pruned")
        return [*stem_layers, *self.layers(network)]

    @abstractmethod
    def features(self, network: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the input of the classifier, for a whole or a sliced network.

        Args:
            network: a network of the family.
            pixel_values: normalized images, float (batch, 3, height, width).

        Returns:
            float (batch, features).
        """

    @abstractmethod
    def classifier_name(self, network: nn.Module) -> str:
        """Return the module path of the final ``nn.Linear``.

        Args:
            network: a whole or a sliced network of the family.

        Returns:
            A path such as ``fc`` or ``head.fc``.
        """

    def classifier(self, network: nn.Module) -> nn.Linear:
        """Return the final linear layer itself.

        Args:
            network: a whole or a sliced network of the family.

        Returns:
            The module itself, not a copy.
        """
        module: Any = network
        for part in self.classifier_name(network).split("."):  # get_submodule stops torch.compile before torch 2.7
            module = getattr(module, part)
        return module

    def stem_names(self, network: nn.Module) -> tuple[str, ...]:
        """Return the paths of the modules before the first prunable layer, which training may freeze.

        Args:
            network: a whole or a sliced network of the family.

        Returns:
            Paths of modules; none if the family freezes nothing.
        """
        return ()

    def stages(self, network: nn.Module) -> list[str]:
        """Return the paths of the modules whose output is the stream, at the end of each stage, or of each block.

        Args:
            network: a whole or a sliced network of the family. The stream of both has the same channels.

        Returns:
            Paths of modules in forward order; none if the family names no `stage_pattern`.
        """
        pattern = re.compile(self.stage_pattern)
        return [path for path, _ in network.named_modules() if path and pattern.fullmatch(path)]

    @abstractmethod
    def describe(self, network: nn.Module) -> tuple[str, dict[str, Any]]:
        """Return ``(architecture, model_args)``, from which `build` makes the same network again.

        Args:
            network: an unsliced network of the family.

        Returns:
            The architecture, as `matches` takes it, and its arguments as JSON values.
        """

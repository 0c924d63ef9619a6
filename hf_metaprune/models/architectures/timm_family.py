"""Shared by the families of timm: how a network is recognized, built and described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from ...errors import ArchitectureError
from .architecture import Architecture
from .model_args import check_model_args


class TimmFamily(Architecture):
    """A family whose networks are some classes in some modules of timm."""

    library = "timm"
    modules: ClassVar[tuple[str, ...]]
    """Modules of timm whose models are of the family."""
    classes: ClassVar[tuple[str, ...]]
    """Names of the networks' classes, which these modules define."""
    what: ClassVar[str]
    """A network of the family in messages, with its article, such as ``a ResNet``."""
    own_args: ClassVar[frozenset[str]] = frozenset()
    """Arguments that go to `finish` and not to timm."""

    @property
    def covers(self) -> str:
        return ", ".join(self.modules)

    def matches(self, architecture: str) -> bool:
        import timm

        return timm.is_model(architecture) and timm.model_entrypoint(architecture).__module__ in self.modules

    def recognizes(self, network: nn.Module) -> bool:
        bases = type(network).__mro__
        return any(base.__name__ in self.classes and base.__module__ in self.modules for base in bases)

    def build(self, architecture: str, model_args: Mapping[str, Any], num_classes: int) -> nn.Module:
        import timm

        check_model_args(model_args, self.model_args, architecture)
        if not self.matches(architecture):
            raise ArchitectureError(f"{architecture!r} is not {self.what} of timm")
        args = {key: list(value) if isinstance(value, tuple) else value for key, value in model_args.items()}
        own = {key: args.pop(key) for key in self.own_args & set(args)}
        try:
            network = timm.create_model(architecture, pretrained=False, num_classes=num_classes, **args)
        except Exception as error:  # whatever timm makes of arguments that do not go together
            raise ArchitectureError(f"timm cannot build {architecture} with {dict(model_args)}: {error}") from error
        if not self.recognizes(network):
            raise ArchitectureError(f"timm's {architecture} is a {type(network).__name__}, which is not supported")
        self.finish(network, **own)
        network.metaprune_args = (architecture, dict(model_args))
        return network

    def finish(self, network: nn.Module, **own: Any) -> None:
        """Change a network of timm in place.

        Args:
            network: the network as timm built it.
            own: the arguments of `own_args` that were given.
        """

    def describe(self, network: nn.Module) -> tuple[str, dict[str, Any]]:
        build_args = getattr(network, "metaprune_args", None)
        if build_args is not None:
            return build_args
        name = (getattr(network, "pretrained_cfg", None) or {}).get("architecture")
        if not name:
            raise ArchitectureError("this timm network does not say its architecture; make it with timm.create_model")
        return name, {}

    def features(self, network: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
        return network.forward_head(network.forward_features(pixel_values), pre_logits=True)  # type: ignore[operator]

"""Shared by the families of timm: their names, how a network is built and described again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from ...errors import ArchitectureError
from .architecture import Architecture
from .model_args import check_model_args


class TimmFamily(Architecture):
    """A family that timm has in some of its modules, as some of its classes."""

    library = "timm"
    modules: ClassVar[tuple[str, ...]]
    """Modules of timm whose models are of the family."""
    classes: ClassVar[tuple[str, ...]]
    """Names of their classes, which lie in these modules."""
    what: ClassVar[str]
    """What a message calls a network of the family."""

    @property
    def covers(self) -> str:
        return ", ".join(self.modules)

    def matches(self, architecture: str) -> bool:
        import timm

        return timm.is_model(architecture) and timm.model_entrypoint(architecture).__module__ in self.modules

    def recognizes(self, network: nn.Module) -> bool:
        kinds = type(network).__mro__
        return any(kind.__name__ in self.classes and kind.__module__ in self.modules for kind in kinds)

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

    own_args: ClassVar[frozenset[str]] = frozenset()
    """Arguments that are not timm's, but of `finish`."""

    def finish(self, network: nn.Module, **own: Any) -> None:
        """Change in place what timm has built."""

    def describe(self, network: nn.Module) -> tuple[str, dict[str, Any]]:
        known = getattr(network, "metaprune_args", None)
        if known is not None:
            return known
        name = (getattr(network, "pretrained_cfg", None) or {}).get("architecture")
        if not name:
            raise ArchitectureError("this timm network does not say its architecture; make it with timm.create_model")
        return name, {}

    def features(self, network: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
        return network.forward_head(network.forward_features(pixel_values), pre_logits=True)  # type: ignore[operator]

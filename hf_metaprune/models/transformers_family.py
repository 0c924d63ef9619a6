"""Shared by the families of transformers: a config and a class of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from torch import nn

from ..errors import ArchitectureError
from .architecture import Architecture
from .model_args import check_model_args


class TransformersFamily(Architecture):
    """A family whose networks are one class of transformers, ``<Name>ForImageClassification``."""

    library = "transformers"
    class_name: ClassVar[str]
    config_name: ClassVar[str]

    def matches(self, architecture: str) -> bool:
        return architecture == self.class_name

    def recognises(self, network: nn.Module) -> bool:
        return type(network).__name__ == self.class_name and type(network).__module__.startswith("transformers.")

    def build(self, architecture: str, model_args: Mapping[str, Any], num_classes: int) -> nn.Module:
        import transformers

        check_model_args(model_args, self.model_args, architecture)
        try:
            config = getattr(transformers, self.config_name)(**model_args, num_labels=num_classes)
            return getattr(transformers, self.class_name)(config)
        except Exception as error:  # whatever transformers makes of arguments that do not go together
            raise ArchitectureError(f"transformers cannot build {architecture}: {error}") from error

    def describe(self, network: nn.Module) -> tuple[str, dict[str, Any]]:
        config = cast("Any", network).config.to_dict()
        return self.class_name, {name: config[name] for name in self.model_args if name in config}

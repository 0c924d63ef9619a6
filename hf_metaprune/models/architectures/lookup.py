"""Which family a network belongs to."""

from __future__ import annotations

from torch import nn

from ...errors import ArchitectureError
from . import timm_convnext, timm_efficientnet, timm_resnet, timm_vit, transformers_resnet, transformers_vit  # noqa: F401  (each registers its families)
from .architecture import Architecture
from .registry import ARCHITECTURES

HOW_TO_ADD = "docs/howto/add-an-architecture.md tells how to add one"


def supported() -> str:
    """Return the supported families as text, for messages."""
    return ", ".join(sorted(f"{f.library}/{f.family} ({f.covers})" for f in ARCHITECTURES.all()))


def find_architecture(library: str, architecture: str) -> Architecture:
    """Return the family that has a network of this name.

    Raises:
        ArchitectureError: none has; the message lists what is supported.
    """
    for family in ARCHITECTURES.all():
        if family.library == library and family.matches(architecture):
            return family
    raise ArchitectureError(
        f"{library} architecture {architecture!r} is not supported; supported: {supported()}; {HOW_TO_ADD}"
    )


def identify_architecture(network: nn.Module) -> Architecture:
    """Return the family that a network belongs to.

    Raises:
        ArchitectureError: none; the message lists what is supported.
    """
    for family in ARCHITECTURES.all():
        if family.recognizes(network):
            return family
    name = f"{type(network).__module__}.{type(network).__name__}"
    raise ArchitectureError(f"{name} is not supported; supported: {supported()}; {HOW_TO_ADD}")

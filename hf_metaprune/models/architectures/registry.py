"""The families that are known; each registers itself at the end of its own file."""

from __future__ import annotations

from ...errors import OptionError
from .architecture import Architecture

FAMILIES: list[Architecture] = []


def register(family: Architecture) -> Architecture:
    """Make a family known; a second one of the same library and name is refused."""
    if any((f.library, f.family) == (family.library, family.family) for f in FAMILIES):
        raise OptionError(f"architecture {family.library}/{family.family} is registered already")
    FAMILIES.append(family)
    return family

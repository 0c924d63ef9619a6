"""The families of networks that are known; each registers itself at the end of its own file."""

from __future__ import annotations

from ...registry import Registry
from .architecture import Architecture

ARCHITECTURES: Registry[Architecture] = Registry("architecture", "hf_metaprune.architectures")
register = ARCHITECTURES.register

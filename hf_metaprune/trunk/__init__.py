"""The trunk: one nested sub-network of a base, from which models of every size start."""

from ..config import TrunkOptions
from .teaching import Teaching
from .trunk import Trunk

__all__ = ["Teaching", "Trunk", "TrunkOptions"]

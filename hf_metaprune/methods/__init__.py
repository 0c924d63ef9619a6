"""Ways to make a bank entry, one file each; plugins use the entry point group hf_metaprune.methods."""

from . import ahnp, amp, ifp, magnitude, random, taylor  # noqa: F401  (each registers itself)
from .ahnp import AhnpOptions
from .learnt import LearntOptions
from .method import Method, PruningJob, SgdOptions, get_method, method_names, register_method
from .schedule import IterativeOptions

__all__ = [
    "AhnpOptions",
    "IterativeOptions",
    "LearntOptions",
    "Method",
    "PruningJob",
    "SgdOptions",
    "get_method",
    "method_names",
    "register_method",
]

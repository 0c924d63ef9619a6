"""Pruning methods, which make bank entries, one file each; plugins use the entry point group hf_metaprune.methods."""

from . import ahnp, amp, grow, ifp, magnitude, random, taylor  # noqa: F401  (each registers itself)
from .ahnp import AhnpOptions
from .grow import GrowOptions
from .learned_scores import LearnedScoreOptions
from .method import Method, PruningJob, SgdOptions, get_method, method_names, register_method
from .schedule import IterativeOptions

__all__ = [
    "AhnpOptions",
    "GrowOptions",
    "IterativeOptions",
    "LearnedScoreOptions",
    "Method",
    "PruningJob",
    "SgdOptions",
    "get_method",
    "method_names",
    "register_method",
]

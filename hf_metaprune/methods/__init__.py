"""Pruning methods, which make bank entries, one file each; plugins use the entry point group hf_metaprune.methods."""

from . import ahnp, amp, ifp, magnitude, random, taylor  # noqa: F401  (each registers itself)
from .ahnp import AhnpOptions
from .learned_scores import LearnedScoreOptions
from .method import Method, PruningJob, SgdOptions, get_method, method_names, register_method
from .schedule import IterativeOptions

__all__ = [
    "AhnpOptions",
    "IterativeOptions",
    "LearnedScoreOptions",
    "Method",
    "PruningJob",
    "SgdOptions",
    "get_method",
    "method_names",
    "register_method",
]

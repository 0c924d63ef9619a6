"""Ways to make a bank entry, one file each; plugins register through the entry point group hf_metaprune.methods."""

from . import ahnp, amp, ifp, magnitude, random, taylor  # noqa: F401  (each registers itself)
from .method import Method, PruningJob, get_method, method_names, register_method

__all__ = ["Method", "PruningJob", "get_method", "method_names", "register_method"]

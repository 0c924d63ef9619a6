"""Similarities between tasks, one file each; plugins use the entry point group hf_metaprune.similarities."""

from . import auto, leep, leep_labels, wordnet  # noqa: F401  (each registers itself)
from .similarity import Neighbor, Query, Similarity, get_similarity, register_similarity, similarity_names

__all__ = ["Neighbor", "Query", "Similarity", "get_similarity", "register_similarity", "similarity_names"]

"""Iterative filter pruning by activation (MVP, Algorithm 2)."""

from ..training.importance import ActivationRecorder
from .iterative import IterativePruning
from .method import register_method


class IterativeFilterPruning(IterativePruning):
    """Pruning of the p% of each layer's filters that have the smallest mean activation, every h steps."""

    name = "ifp"
    reference = "Meta-Vote Pruning, Algorithm 2; importance of Molchanov et al., 2016 (arXiv 1611.06440)"
    recorder = ActivationRecorder


register_method(IterativeFilterPruning())

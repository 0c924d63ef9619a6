"""Iterative pruning by the first-order Taylor criterion (Molchanov et al., 2019)."""

from ..training.importance import TaylorRecorder
from .iterative import IterativePruning
from .method import register_method


class TaylorPruning(IterativePruning):
    """Pruning of the p% of each layer's filters whose removal would change the loss least, every h steps."""

    name = "taylor"
    reference = "Molchanov et al., 2019, Importance Estimation for Neural Network Pruning (arXiv 1906.10771)"
    recorder = TaylorRecorder


register_method(TaylorPruning())

"""LEEP: the log expected empirical prediction (Nguyen et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from tqdm.auto import tqdm

from ..bank.entry import Entry
from ..errors import FormatError
from ..sizing.cost_model import count_flops
from ..training.forward import predict_logits
from .similarity import Query, Similarity, register_similarity


def leep(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the LEEP score of a source model on a target data set (Nguyen et al., 2020, Equations 1 and 2).

    Args:
        probabilities: the source model's predictions on the target's images: float (images, source classes). Each row
            sums to 1.
        targets: the target class of each image: integers (images,).

    Returns:
        The mean log-likelihood of the targets under the expected empirical predictor, in nats, in (-inf, 0]. Source
        classes that have probability 0 for all images do not matter.

    Example:
        A source model that separates the target's classes gets the highest score, whatever it calls them:

        >>> bool(leep(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([7, 3])) == 0)
        True
        >>> round(leep(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([7, 3])), 4)
        -0.6931
    """
    theta = np.asarray(probabilities, dtype=np.float64)
    _, y = np.unique(np.asarray(targets), return_inverse=True)
    joint = np.zeros((y.max() + 1, theta.shape[1]))
    np.add.at(joint, y, theta / len(theta))
    marginal = joint.sum(0)
    conditional = np.divide(joint, marginal, out=np.zeros_like(joint), where=marginal > 0)
    expected = np.einsum("nz,nz->n", conditional[y], theta)
    # In exact arithmetic each of these numbers is above 0; in floats a tiny product can become 0, whose log is -inf.
    return float(np.log(np.maximum(expected, np.finfo(np.float64).tiny)).mean())


class Leep(Similarity):
    """The LEEP score of each entry's model on the target's images.

    Each entry makes one forward pass on at most ``query.samples`` images, about equally many per class.
    """

    name = "leep"
    reference = "Nguyen et al., 2020, LEEP (arXiv 2002.12462)"

    def weight(self, score: float) -> float:
        """Return the weight of a neighbor in votes and averages: exp(score), the geometric mean of the likelihoods."""
        return math.exp(score)

    def scores(self, query: Query, entries: Sequence[Entry]) -> Mapping[str, float]:
        images = query.sample
        targets = images.targets.numpy()
        scores: dict[str, float] = {}

        def score(entry: Entry) -> None:
            model = entry.load_model().to(device=query.device, memory_format=torch.channels_last)
            probabilities = predict_logits(model, images, query.device, "auto").double().softmax(1).numpy()
            if not np.isfinite(probabilities).all():
                raise FormatError("its outputs are not finite")
            scores[entry.id] = leep(probabilities, targets)
            query.record.retrieval_flops += len(images) * count_flops(model, images.images[:1])[0]

        query.fetch(entries)
        for entry in tqdm(entries, desc="ranking by LEEP", disable=not query.progress, leave=False):
            query.usable(entry, partial(score, entry))
        return scores


register_similarity(Leep())

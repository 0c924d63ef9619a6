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
    """The LEEP score of a source model on a target data set (Nguyen et al., 2020, equations 1 and 2).

    Args:
        probabilities: (n, source classes), the source model's predictions on the target's images; rows sum to 1.
        targets: (n,), target classes, any integers.

    Returns:
        The mean log-likelihood of the targets under the expected empirical predictor, in (-inf, 0]. A source class
        to which no image gives any mass has no say (its conditional is never used with a weight above zero).
    """
    theta = np.asarray(probabilities, dtype=np.float64)
    _, y = np.unique(np.asarray(targets), return_inverse=True)
    joint = np.zeros((y.max() + 1, theta.shape[1]))
    np.add.at(joint, y, theta / len(theta))
    marginal = joint.sum(0)
    conditional = np.divide(joint, marginal, out=np.zeros_like(joint), where=marginal > 0)
    expected = np.einsum("nz,nz->n", conditional[y], theta)
    # Every image has mass somewhere, and there its own class has a conditional above zero: but float underflow.
    return float(np.log(np.maximum(expected, np.finfo(np.float64).tiny)).mean())


class Leep(Similarity):
    """One forward pass of every entry on at most `samples` of the target's images, about equally many a class."""

    name = "leep"
    reference = "Nguyen et al., 2020, LEEP (arXiv 2002.12462)"

    def weight(self, score: float) -> float:
        """The geometric mean likelihood that the score is the logarithm of."""
        return math.exp(score)

    def scores(self, query: Query, entries: Sequence[Entry]) -> Mapping[str, float]:
        images = query.sample
        targets = images.targets.numpy()
        found: dict[str, float] = {}

        def score(entry: Entry) -> None:
            model = entry.load_model().to(device=query.device, memory_format=torch.channels_last)
            probabilities = predict_logits(model, images, query.device, "auto").double().softmax(1).numpy()
            if not np.isfinite(probabilities).all():
                raise FormatError("its outputs are not finite")
            found[entry.id] = leep(probabilities, targets)
            query.record.retrieval_flops += len(images) * count_flops(model, images.images[:1])[0]

        query.fetch(entries)
        for entry in tqdm(entries, desc="ranking by LEEP", disable=not query.progress, leave=False):
            query.usable(entry, partial(score, entry))
        return found


register_similarity(Leep())

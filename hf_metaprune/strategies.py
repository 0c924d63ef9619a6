"""Where a sub-network's mask and first weights come from: a vote of neighbours, the base alone, or chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .averaging import average_weights
from .config import AdaptOptions
from .data import ImageSet
from .importance import ActivationRecorder
from .masks import Mask
from .methods.iterative import next_mask
from .models.base import BaseModel
from .models.modeling import MetaPrunedForImageClassification
from .models.slicing import slice_state
from .recipes import SIMILARITY
from .similarity import Neighbour, get_similarity
from .task import Task
from .training import EVAL_BATCH, autocast, count_flops
from .voting import count_votes, is_tied, vote


@dataclass
class Start:
    """What a strategy works from."""

    base: BaseModel
    task: Task
    images: ImageSet
    options: AdaptOptions
    ratio: float
    device: torch.device
    neighbours: Sequence[Neighbour] = ()
    weights: Sequence[float] | None = None
    """How much each neighbour's vote counts; None: all the same."""
    flops: int = 0
    """Spent on forward passes of the base; a strategy adds here."""


Strategy = Callable[[Start], tuple[Mask, dict[str, torch.Tensor]]]
"""From a `Start` to the mask and the sliced weights, the classifier left out."""


def base_activations(start: Start, images: ImageSet) -> dict[str, np.ndarray]:
    """Mean absolute activation of every unit of the base on some of the target's images, by layer."""
    model = start.base.whole(start.task.labels).to(device=start.device, memory_format=torch.channels_last).eval()
    with torch.inference_mode(), ActivationRecorder(model) as recorder:
        for x, _ in images.batches(EVAL_BATCH):
            with autocast(start.device, "auto"):
                model(x.to(start.device).contiguous(memory_format=torch.channels_last))
    start.flops += len(images) * count_flops(model, images.images[:1])[0]
    return {name: scores.numpy() for name, scores in recorder.scores().items()}


def _from_base(start: Start, mask: Mask) -> tuple[Mask, dict[str, torch.Tensor]]:
    head = start.base.family.classifier_name(start.base.network)
    state = {n: t for n, t in start.base.state.items() if not n.startswith(f"{head}.")}
    return mask, slice_state(state, start.base.layers, mask)


def by_vote(start: Start) -> tuple[Mask, dict[str, torch.Tensor]]:
    """Meta-Vote Pruning: the neighbours' votes and the mean of their weights (MVP, Algorithm 1)."""
    o = start.options
    entries = [n.entry for n in start.neighbours]
    if o.weighted:
        start.weights = [get_similarity(o.by or SIMILARITY).weight(n.score) for n in start.neighbours]
    weights = start.weights
    sample = o.vote != "top"
    masks = [entry.mask for entry in entries]
    tie_break = None
    if not sample and is_tied(count_votes(masks, weights), start.ratio):
        tie_break = base_activations(start, start.images.stratified(o.leep_samples, o.seed))
    mask = vote(masks, start.ratio, tau=o.tau, sample=sample, weights=weights, tie_break=tie_break, seed=o.seed)
    head = start.base.family.classifier_name(start.base.network)
    skip = [f"{head}.weight", f"{head}.bias"]
    return mask, average_weights(entries, mask, start.base.state, start.base.layers, skip)


def by_activation(start: Start) -> tuple[Mask, dict[str, torch.Tensor]]:
    """No bank: the base's units with the largest mean activation on the target's images, with its own weights."""
    scores = {name: torch.from_numpy(values) for name, values in base_activations(start, start.images).items()}
    return _from_base(start, next_mask(Mask.full(start.base.sizes), scores, 1.0, start.ratio))


def by_chance(start: Start) -> tuple[Mask, dict[str, torch.Tensor]]:
    """A random mask with the base's weights (MVP, Section 5.2)."""
    return _from_base(start, Mask.random(start.base.sizes, start.ratio, start.options.seed))


STRATEGIES: dict[str, Strategy] = {"mvp": by_vote, "no-bank": by_activation, "random": by_chance}


def first_model(start: Start, method: str) -> MetaPrunedForImageClassification:
    """The sub-network that ``options.strategy`` starts from, with a new random classifier."""
    mask, state = STRATEGIES[start.options.strategy](start)
    config = start.base.config(mask, start.task.labels, synsets=start.task.synsets, ratio=start.ratio, method=method)
    config.seed = start.options.seed
    torch.manual_seed(start.options.seed)  # the classifier's first weights
    model = MetaPrunedForImageClassification(config)
    model.network.load_state_dict(state, strict=False)
    return model

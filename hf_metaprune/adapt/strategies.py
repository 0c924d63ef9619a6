"""Where a sub-network's mask and first weights come from: votes of neighbours, the base alone, or chance."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ..config import VOTED, AdaptOptions
from ..data.images import ImageSet
from ..data.task import Task
from ..masks.mask import Mask, keep_count
from ..masks.scores import ScoreMask, sum_scores
from ..models.architectures.architecture import PrunableLayer, layer_sizes
from ..models.base_model import BaseModel
from ..models.modeling import MetaPrunedForImageClassification
from ..models.slicing import slice_state
from ..similarity import Neighbour, get_similarity
from ..sizing.cost_model import count_flops
from ..sizing.sizes import Order
from ..training.forward import forward
from ..training.importance import ActivationRecorder
from .averaging import average_weights
from .recipes import ENOUGH_HELD, SIMILARITY
from .voting import count_votes, is_tied, vote_order


@dataclass
class Start:
    """What a strategy works from."""

    base: BaseModel
    task: Task
    images: ImageSet
    options: AdaptOptions
    ratio: float | None
    """The share of units to remove in every layer; None: sizes follow from something else."""
    device: torch.device
    neighbours: Sequence[Neighbour] = ()
    runners_up: Sequence[Neighbour] = ()
    """Entries that were looked at, too, but do not vote; nearest first."""
    weights: Sequence[float] | None = None
    """How much each neighbour's vote counts; None: all the same."""
    flops: int = 0
    """Spent on forward passes of the base; a strategy adds here."""

    @cached_property
    def layers(self) -> list[PrunableLayer]:
        """The layers to prune."""
        return self.base.layers_with(self.options.prune_stem)

    @property
    def sizes(self) -> dict[str, int]:
        """Unit counts of the layers to prune."""
        return layer_sizes(self.layers)

    @property
    def held(self) -> Mask:
        """The units of these layers that some neighbour holds."""
        return functools.reduce(operator.or_, self.masks)

    @property
    def masks(self) -> list[Mask]:
        """The neighbours' masks over these layers: none of them has pruned a stem."""
        return [neighbour.entry.mask.with_whole(self.sizes) for neighbour in self.neighbours]

    def weigh(self) -> None:
        """Let the similarities weigh the votes, if they are to."""
        if self.options.weighted:
            similarity = get_similarity(self.options.by or SIMILARITY)
            self.weights = [similarity.weight(n.score) for n in self.neighbours]


Strategy = Callable[[Start], Order]
"""From a `Start` to the order in which units stay."""


def base_activations(start: Start, images: ImageSet) -> dict[str, np.ndarray]:
    """Mean absolute activation of every unit of the base on some of the target's images, by layer."""
    model = (
        start.base.whole(start.task.labels, start.options.prune_stem)
        .to(device=start.device, memory_format=torch.channels_last)
        .eval()
    )
    with torch.inference_mode(), ActivationRecorder(model) as recorder:
        for _ in forward(model, images, start.device, "auto"):
            pass
    start.flops += len(images) * count_flops(model, images.images[:1])[0]
    return {name: scores.numpy() for name, scores in recorder.scores().items()}


def by_vote(start: Start) -> Order:
    """Meta-Vote Pruning: the neighbours' votes (MVP, Algorithm 1)."""
    o = start.options
    start.weigh()
    masks = start.masks
    sample, counts = o.vote != "top", count_votes(masks, start.weights)
    tie_break = None
    if not sample and (start.ratio is None or is_tied(counts, _even(start.sizes, start.ratio))):
        tie_break = _few_activations(start)
    order = vote_order(masks, tau=o.tau, sample=sample, weights=start.weights, tie_break=tie_break, seed=o.seed)
    return Order(order, ScoreMask(counts), ScoreMask(tie_break).normalised("layer") if tie_break else None)


def by_score_vote(start: Start) -> Order:
    """SMSP: the sum of the neighbours' score masks; units that nobody scores in the order of the base's activations.

    Scores that contradict the entry's own mask are made to agree with it: what it holds was trained to stay.

    With `activations` that sum orders the units that a neighbour holds, and they come first; the others, which no
    neighbour was trained with, are ordered by its mean with the base's activations.
    """
    o = start.options
    start.weigh()
    found = [n.entry.score_mask().agreeing(n.entry.mask) for n in start.neighbours]
    scores = sum_scores([one.with_even(start.sizes) for one in found], start.weights, o.normalise)
    held, share = start.held, o.activations or 0.0
    counts = None if start.ratio is None else _even(start.sizes, start.ratio)
    lacking = share > 0 and (counts is None or any(len(held[name]) < count for name, count in counts.items()))
    if not lacking and counts is not None and not is_tied(scores, counts):
        return Order.by_scores(scores)
    active = _few_activations(start)
    if lacking:
        scores = _held_first(scores, ScoreMask(active).normalised("layer"), held, share)
    return Order.by_scores(scores, active)


def _held_first(scores: ScoreMask, active: ScoreMask, held: Mask, share: float) -> ScoreMask:
    """Scores of held units above all others; of those the mean with activations, `share` of it activations."""
    flags = held.to_bools()
    others = {name: (1 - share) * values + share * active[name] for name, values in scores.items()}
    top = max((float(values[~flags[name]].max(initial=0.0)) for name, values in others.items()), default=0.0)
    return ScoreMask({name: np.where(flags[name], top + values, others[name]) for name, values in scores.items()})


def by_activation(start: Start) -> Order:
    """No bank: the base's units with the largest mean activation on the target's images."""
    scores = ScoreMask(base_activations(start, start.images))
    return Order.by_scores(scores.normalised("layer"))


def by_chance(start: Start) -> Order:
    """Random units (MVP, Section 5.2)."""
    rng = np.random.default_rng(start.options.seed)
    return Order.by_scores(ScoreMask({name: rng.random(size) for name, size in start.sizes.items()}))


def _few_activations(start: Start) -> dict[str, np.ndarray]:
    return base_activations(start, start.images.stratified(start.options.leep_samples, start.options.seed))


def _even(sizes: dict[str, int], ratio: float) -> dict[str, int]:
    return {name: keep_count(size, ratio) for name, size in sizes.items()}


STRATEGIES: dict[str, Strategy] = {
    "mvp": by_vote,
    "smsp": by_score_vote,
    "no-bank": by_activation,
    "random": by_chance,
}
METHODS = {"mvp": "mvp", "smsp": "smsp", "no-bank": "activation", "random": "random"}
"""What a model's config calls them."""


def takes_neighbours_weights(start: Start, mask: Mask) -> bool:
    """Whether first weights are the neighbours': with "auto" if they hold enough of the units that stay."""
    o = start.options
    if o.strategy not in VOTED or o.weights == "base":
        return False
    enough = ENOUGH_HELD[start.base.family.optimizer] * mask.n_kept
    return o.weights == "neighbours" or (mask & start.held).n_kept >= enough


def first_weights(start: Start, mask: Mask) -> dict[str, torch.Tensor]:
    """The sliced weights to start from, without the classifier: the neighbours' mean, or the base's."""
    base = start.base
    head = base.family.classifier_name(base.network)
    if takes_neighbours_weights(start, mask):
        entries = [n.entry for n in start.neighbours]
        return average_weights(entries, mask, base.state, start.layers, [f"{head}.weight", f"{head}.bias"])
    return slice_state({n: t for n, t in base.state.items() if not n.startswith(f"{head}.")}, start.layers, mask)


def first_model(start: Start, mask: Mask, scores: ScoreMask, ratio: float) -> MetaPrunedForImageClassification:
    """The sub-network that ``options.strategy`` starts from, with a new random classifier."""
    o = start.options
    config = start.base.config(
        mask, start.task.labels, synsets=start.task.synsets, ratio=ratio, method=METHODS[o.strategy]
    )
    config.seed = o.seed
    torch.manual_seed(o.seed)  # the classifier's first weights
    model = MetaPrunedForImageClassification(config)
    model.network.load_state_dict(first_weights(start, mask), strict=False)
    if o.strategy == "smsp" and not o.prune_stem:  # a model whose stem is pruned is no voter
        model.score_mask = scores
    return model

"""Where a sub-network's mask and first weights come from: votes of neighbors, the base alone, or chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ..config import VOTED
from ..data.images import ImageSet
from ..masks.mask import Mask, keep_count
from ..masks.scores import ScoreMask, sum_scores
from ..models.modeling import MetaPrunedForImageClassification
from ..models.slicing import slice_state
from ..sizing.cost_model import count_flops
from ..sizing.inputs import AdaptInputs
from ..sizing.order import Order
from ..training.forward import forward
from ..training.importance import ActivationRecorder
from ..training.record import RunRecord
from .averaging import average_weights
from .voters import Voters
from .voting import count_votes, is_tied, vote_order

Strategy = Callable[[AdaptInputs, Voters, RunRecord], Order]
"""From what is given and who votes to the order in which units stay."""


def base_activations(inputs: AdaptInputs, images: ImageSet, record: RunRecord) -> dict[str, np.ndarray]:
    """Mean absolute activation of every unit of the base on some of the target's images, by layer."""
    model = (
        inputs.base.whole(inputs.task.labels, inputs.options.prune_stem)
        .to(device=inputs.device, memory_format=torch.channels_last)
        .eval()
    )
    with torch.inference_mode(), ActivationRecorder(model) as recorder:
        for _ in forward(model, images, inputs.device, "auto"):
            pass
    record.preparation_flops += len(images) * count_flops(model, images.images[:1])[0]
    return {name: scores.numpy() for name, scores in recorder.scores().items()}


def by_vote(inputs: AdaptInputs, voters: Voters, record: RunRecord) -> Order:
    """Meta-Vote Pruning: the neighbors' votes (MVP, Algorithm 1)."""
    o = inputs.options
    masks = voters.masks(inputs.sizes)
    sample, counts = o.vote != "top", count_votes(masks, voters.weights)
    tie_break = None
    if not sample and (inputs.ratio is None or is_tied(counts, _even(inputs.sizes, inputs.ratio))):
        tie_break = _few_activations(inputs, record)
    order = vote_order(masks, tau=o.tau, sample=sample, weights=voters.weights, tie_break=tie_break, seed=o.seed)
    return Order(order, ScoreMask(counts), ScoreMask(tie_break).normalized("layer") if tie_break else None)


def by_score_vote(inputs: AdaptInputs, voters: Voters, record: RunRecord) -> Order:
    """SMSP: the sum of the neighbors' score masks; units that nobody scores in the order of the base's activations.

    Scores that contradict the entry's own mask are made to agree with it: what it holds was trained to stay.

    With `activations` that sum orders the units that a neighbor holds, and they come first; the others, which no
    neighbor was trained with, are ordered by its mean with the base's activations.
    """
    o = inputs.options
    found = [entry.score_mask().reconciled(entry.mask) for entry in voters.entries]
    scores = sum_scores([one.with_ones_for(inputs.sizes) for one in found], voters.weights, o.normalize)
    held, share = voters.held(inputs.sizes), o.activations or 0.0
    counts = None if inputs.ratio is None else _even(inputs.sizes, inputs.ratio)
    lacking = share > 0 and (counts is None or any(len(held[name]) < count for name, count in counts.items()))
    if not lacking and counts is not None and not is_tied(scores, counts):
        return Order.by_scores(scores)
    active = _few_activations(inputs, record)
    if lacking:
        scores = _held_first(scores, ScoreMask(active).normalized("layer"), held, share)
    return Order.by_scores(scores, active)


def _held_first(scores: ScoreMask, active: ScoreMask, held: Mask, share: float) -> ScoreMask:
    """Scores of held units above all others; of those the mean with activations, `share` of it activations."""
    flags = held.to_bools()
    others = {name: (1 - share) * values + share * active[name] for name, values in scores.items()}
    top = max((float(values[~flags[name]].max(initial=0.0)) for name, values in others.items()), default=0.0)
    return ScoreMask({name: np.where(flags[name], top + values, others[name]) for name, values in scores.items()})


def by_activation(inputs: AdaptInputs, voters: Voters, record: RunRecord) -> Order:
    """No bank: the base's units with the largest mean activation on the target's images."""
    scores = ScoreMask(base_activations(inputs, inputs.images, record))
    return Order.by_scores(scores.normalized("layer"))


def by_chance(inputs: AdaptInputs, voters: Voters, record: RunRecord) -> Order:
    """Random units (MVP, Section 5.2)."""
    rng = np.random.default_rng(inputs.options.seed)
    return Order.by_scores(ScoreMask({name: rng.random(size) for name, size in inputs.sizes.items()}))


def _few_activations(inputs: AdaptInputs, record: RunRecord) -> dict[str, np.ndarray]:
    return base_activations(inputs, inputs.images.stratified(inputs.options.leep_samples, inputs.options.seed), record)


def _even(sizes: dict[str, int], ratio: float) -> dict[str, int]:
    return {name: keep_count(size, ratio) for name, size in sizes.items()}


STRATEGIES: dict[str, Strategy] = {
    "mvp": by_vote,
    "smsp": by_score_vote,
    "no-bank": by_activation,
    "random": by_chance,
}
METHOD_NAMES = {"mvp": "mvp", "smsp": "smsp", "no-bank": "activation", "random": "random"}
"""What a model's config calls them."""


def takes_neighbors_weights(inputs: AdaptInputs, voters: Voters, mask: Mask) -> bool:
    """Whether first weights are the neighbors': with "auto" if they hold enough of the units that stay."""
    o = inputs.options
    if o.strategy not in VOTED or o.weights == "base":
        return False
    enough = inputs.base.family.recipe.enough_held * mask.n_kept
    return o.weights == "neighbors" or (mask & voters.held(inputs.sizes)).n_kept >= enough


def first_weights(inputs: AdaptInputs, voters: Voters, mask: Mask) -> dict[str, torch.Tensor]:
    """The sliced weights to start from, without the classifier: the neighbors' mean, or the base's."""
    base = inputs.base
    head = base.family.classifier_name(base.network)
    if takes_neighbors_weights(inputs, voters, mask):
        return average_weights(voters.entries, mask, base.state, inputs.layers, [f"{head}.weight", f"{head}.bias"])
    return slice_state({n: t for n, t in base.state.items() if not n.startswith(f"{head}.")}, inputs.layers, mask)


def first_model(
    inputs: AdaptInputs, voters: Voters, mask: Mask, scores: ScoreMask, ratio: float
) -> MetaPrunedForImageClassification:
    """The sub-network that ``options.strategy`` starts from, with a new random classifier."""
    o = inputs.options
    config = inputs.base.config(
        mask, inputs.task.labels, synsets=inputs.task.synsets, ratio=ratio, method=METHOD_NAMES[o.strategy]
    )
    config.seed = o.seed
    torch.manual_seed(o.seed)  # the classifier's first weights
    model = MetaPrunedForImageClassification(config)
    model.network.load_state_dict(first_weights(inputs, voters, mask), strict=False)
    if o.strategy == "smsp" and not o.prune_stem:  # a model whose stem is pruned is no voter
        model.score_mask = scores
    return model


def note_unheld(inputs: AdaptInputs, voters: Voters, mask: Mask, record: RunRecord) -> None:
    """Say how many units are kept that no neighbor has."""
    unheld = (mask - voters.held(inputs.sizes)).n_kept
    if unheld:
        which = "they start" if takes_neighbors_weights(inputs, voters, mask) else "all start"
        record.note(
            f"{unheld} of the {mask.n_kept} units that stay are held by no neighbor: {which} with the base's weights"
        )

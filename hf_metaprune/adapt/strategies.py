"""Strategies: a sub-network's mask and first weights from the neighbors' votes, from the base alone, or by chance."""

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
"""A function that returns the order in which units stay, from the inputs, the voters and the run's record."""


def measure_base_activations(inputs: AdaptInputs, images: ImageSet, record: RunRecord) -> dict[str, np.ndarray]:
    """Measure the mean absolute activation of every unit of the base on some of the target's images.

    Args:
        inputs: the base and the device.
        images: the images.
        record: receives the FLOPs.

    Returns:
        float32 (units,) by layer.
    """
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


def order_by_votes(inputs: AdaptInputs, voters: Voters, record: RunRecord) -> Order:
    """Return the order of the neighbors' votes (MVP, Algorithm 1).

    Without sampling, the base's activations decide between equal votes.
    """
    o = inputs.options
    masks = voters.masks(inputs.sizes)
    sample, counts = o.vote != "top", count_votes(masks, voters.vote_weights)
    tie_break = None
    if not sample and (inputs.ratio is None or is_tied(counts, _kept_counts(inputs.sizes, inputs.ratio))):
        tie_break = _sample_activations(inputs, record)
    order = vote_order(
        masks, tau=o.tau, sample=sample, vote_weights=voters.vote_weights, tie_break=tie_break, seed=o.seed
    )
    return Order(order, ScoreMask(counts), ScoreMask(tie_break).normalized("layer") if tie_break else None)


def order_by_score_sum(inputs: AdaptInputs, voters: Voters, record: RunRecord) -> Order:
    """Return the order of the sum of the neighbors' score masks (SMSP).

    Scores that contradict an entry's own mask are changed to agree with it, because the entry was trained with the
    units of its mask. The base's activations decide between equal scores.

    If ``options.activations`` is above 0, and the neighbors' units do not suffice, the neighbors' units come first. The
    other units, which no neighbor was trained with, are ordered by the mean of their scores and the base's activations.
    """
    o = inputs.options
    score_masks = [entry.score_mask().reconciled(entry.mask).with_ones_for(inputs.sizes) for entry in voters.entries]
    scores = sum_scores(score_masks, voters.vote_weights, o.normalize)
    held_units, share = voters.held_units(inputs.sizes), o.activations or 0.0
    counts = None if inputs.ratio is None else _kept_counts(inputs.sizes, inputs.ratio)
    needs_others = share > 0 and (
        counts is None or any(len(held_units[name]) < count for name, count in counts.items())
    )
    if not needs_others and counts is not None and not is_tied(scores, counts):
        return Order.from_scores(scores)
    activations = _sample_activations(inputs, record)
    if needs_others:
        scores = _put_held_units_first(scores, ScoreMask(activations).normalized("layer"), held_units, share)
    return Order.from_scores(scores, activations)


def _put_held_units_first(scores: ScoreMask, activations: ScoreMask, held_units: Mask, share: float) -> ScoreMask:
    """Return scores in which units that a neighbor holds are above all others.

    The others get the mean of score and activation, in which the activation has the weight `share`.
    """
    flags = held_units.to_bools()
    means = {name: (1 - share) * values + share * activations[name] for name, values in scores.items()}
    top = max((float(values[~flags[name]].max(initial=0.0)) for name, values in means.items()), default=0.0)
    return ScoreMask({name: np.where(flags[name], top + values, means[name]) for name, values in scores.items()})


def order_by_activation(inputs: AdaptInputs, voters: Voters, record: RunRecord) -> Order:
    """Return the order of the base's mean activations on the target's images, without any bank."""
    scores = ScoreMask(measure_base_activations(inputs, inputs.images, record))
    return Order.from_scores(scores.normalized("layer"))


def order_by_trunk(inputs: AdaptInputs, voters: Voters, record: RunRecord) -> Order:
    """Return the order of the bank's trunk, in which its sub-networks were taught."""
    assert voters.trunk is not None  # it was checked before
    ranks = {name: np.empty(len(units)) for name, units in voters.trunk.order.items()}
    for name, units in voters.trunk.order.items():
        ranks[name][units] = np.arange(len(units), 0, -1) / len(units)
    return Order.from_scores(ScoreMask(ranks))


def random_order(inputs: AdaptInputs, voters: Voters, record: RunRecord) -> Order:
    """Return a random order (MVP, Section 5.2)."""
    rng = np.random.default_rng(inputs.options.seed)
    return Order.from_scores(ScoreMask({name: rng.random(size) for name, size in inputs.sizes.items()}))


def _sample_activations(inputs: AdaptInputs, record: RunRecord) -> dict[str, np.ndarray]:
    """Measure the base's activations on as many images as LEEP uses."""
    sample = inputs.images.stratified(inputs.options.leep_samples, inputs.options.seed)
    return measure_base_activations(inputs, sample, record)


def _kept_counts(sizes: dict[str, int], ratio: float) -> dict[str, int]:
    return {name: keep_count(size, ratio) for name, size in sizes.items()}


STRATEGIES: dict[str, Strategy] = {
    "mvp": order_by_votes,
    "smsp": order_by_score_sum,
    "trunk": order_by_trunk,
    "no-bank": order_by_activation,
    "random": random_order,
}
"""The strategies by name."""
METHOD_NAMES = {"mvp": "mvp", "smsp": "smsp", "trunk": "trunk", "no-bank": "activation", "random": "random"}
"""The name of each strategy in a model's config."""


def starts_from_neighbors(inputs: AdaptInputs, voters: Voters, mask: Mask) -> bool:
    """Return whether the first weights are the neighbors' mean.

    With ``weights="auto"`` they are if the neighbors hold enough of the units that stay.
    """
    o = inputs.options
    if o.strategy not in VOTED or o.weights in ("base", "trunk"):
        return False
    least_held = inputs.base.family.recipe.min_held_share * mask.n_kept
    return o.weights == "neighbors" or (mask & voters.held_units(inputs.sizes)).n_kept >= least_held


def first_weights(inputs: AdaptInputs, voters: Voters, mask: Mask) -> dict[str, torch.Tensor]:
    """Return the sliced weights to start from, without the classifier.

    They are the neighbors' mean. Units that no neighbor holds, or all, have the trunk's weights, or the base's.
    """
    base, trunk = inputs.base, voters.trunk
    head = base.family.classifier_name(base.network)
    state = base.state if trunk is None else trunk.whole_state(mask.ratio)
    if starts_from_neighbors(inputs, voters, mask):
        return average_weights(voters.entries, mask, state, inputs.layers, [f"{head}.weight", f"{head}.bias"])
    return slice_state({n: t for n, t in state.items() if not n.startswith(f"{head}.")}, inputs.layers, mask)


def first_model(
    inputs: AdaptInputs, voters: Voters, mask: Mask, scores: ScoreMask, ratio: float
) -> MetaPrunedForImageClassification:
    """Make the sub-network to fine-tune, with its first weights and a random classifier.

    Args:
        inputs: the base, the task and the options.
        voters: the entries that voted.
        mask: the units that stay.
        scores: the score of each unit in the vote, which an SMSP model stores to vote itself.
        ratio: the ratio for the model's config.

    Returns:
        The model, on the CPU.
    """
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
    """Note for the user how many of the units that stay are held by no neighbor, if any."""
    n_unheld = (mask - voters.held_units(inputs.sizes)).n_kept
    if n_unheld:
        which = "they start" if starts_from_neighbors(inputs, voters, mask) else "all start"
        whose = "base's" if voters.trunk is None else "trunk's"
        record.note(
            f"{n_unheld} of the {mask.n_kept} units that stay are held by no neighbor: {which} with the {whose} weights"
        )

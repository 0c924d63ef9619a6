"""The choice of a sub-network's batch norm statistics before its training."""

from __future__ import annotations

import math

import torch

from ..data.images import ImageSet
from ..models.modeling import MetaPrunedForImageClassification
from ..models.slicing import is_statistic, slice_state
from ..sizing.cost_model import count_flops
from ..sizing.inputs import AdaptInputs
from ..training.forward import extract_features
from ..training.record import RunRecord
from ..training.ridge import ridge_head
from ..training.statistics import (
    STATISTICS_IMAGES,
    read_statistics,
    recalibrate,
    set_statistics,
    statistics_images,
    transferred_statistics,
)

LEAST_GAIN = 0.03
"""The share by which the error must fall for statistics to replace those that the weights came with."""


def set_first_statistics(
    model: MetaPrunedForImageClassification, inputs: AdaptInputs, record: RunRecord
) -> tuple[str, int]:
    """Give a sub-network the batch norm statistics to start with, in place.

    With ``statistics="auto"`` these are the statistics that its weights came with (*own*), unless those of the task's
    images (*new*) or `transferred_statistics` have a leave-one-out error (see `LinearHead.error`) that is lower by
    `LEAST_GAIN`. The error is measured on at most `STATISTICS_IMAGES` images.

    Args:
        model: the sub-network.
        inputs: the base, the task's images and the options.
        record: receives the FLOPs of the base's forward passes.

    Returns:
        Which statistics it has now (``own``, ``new`` or ``transferred``), and how many images went through it.
    """
    choice, device = inputs.options.statistics, inputs.device
    images = inputs.images.stratified(STATISTICS_IMAGES, inputs.options.seed)
    own = read_statistics(model)
    if not own or choice in ("own", "moving"):
        return "own", 0
    sample = statistics_images(inputs.images, inputs.photos, inputs.options.seed)
    n_images = recalibrate(model, sample, device, seed=inputs.options.seed)
    if choice == "new":
        return "new", n_images
    candidates = {"own": own, "new": read_statistics(model)}
    candidates["transferred"] = _transferred(candidates["new"], model, inputs, sample, record)
    errors = {}
    for name, statistics in candidates.items():
        set_statistics(model, statistics)
        features = extract_features(model, images, device)
        is_finite = bool(torch.isfinite(features).all())
        error = ridge_head(features, images.targets, len(inputs.task.labels)).error if is_finite else math.nan
        errors[name] = math.inf if math.isnan(error) else error
    name = min(("new", "transferred"), key=errors.__getitem__)
    name = name if errors[name] < (1 - LEAST_GAIN) * errors["own"] else "own"
    set_statistics(model, candidates[name])
    return name, n_images + len(candidates) * len(images)


def final_statistics(choice: str, first: str, may_stay: bool) -> str:
    """Return the statistics that a model gets by training, see `fine_tune`.

    Args:
        choice: the option.
        first: the statistics that the model begins with, see `set_first_statistics`.
        may_stay: whether the model begins with statistics of many images, and learns from few.
    """
    if choice == "auto":
        return "fixed" if first == "own" and may_stay else "new"
    return "fixed" if choice == "own" else choice


def _transferred(
    new: dict[str, torch.Tensor],
    model: MetaPrunedForImageClassification,
    inputs: AdaptInputs,
    sample: ImageSet,
    record: RunRecord,
) -> dict[str, torch.Tensor]:
    """Return the transferred statistics of a sub-network, whose statistics of a sample are `new`."""
    base, mask = inputs.base, model.mask()
    whole = base.whole(inputs.task.labels, inputs.options.prune_stem)
    n_images = recalibrate(whole, sample, inputs.device, seed=inputs.options.seed)
    record.preparation_flops += n_images * count_flops(whole, inputs.images.images[:1])[0]
    own = {name: tensor for name, tensor in base.state.items() if is_statistic(name)}
    base_new, base_own = (slice_state(state, inputs.layers, mask) for state in (read_statistics(whole), own))
    return transferred_statistics(new, base_new, base_own)

"""Classifiers in closed form on a sub-network's own features, which are useful before any training step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..data.images import ImageSet
from ..data.task import Task
from ..models.architectures.layers import kept_indices, tensor_axes
from ..models.modeling import MetaPrunedForImageClassification
from ..training.forward import finite_features
from ..training.ridge import ridge_head
from .averaging import PREFIX


def neighbor_rows(
    task: Task, entries: Sequence, model: MetaPrunedForImageClassification
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Return the mean of the neighbors' classifier rows for each class of a task.

    The rows are centered within each neighbor first, because a constant that is added to all rows of a softmax
    classifier changes nothing.

    Args:
        task: the task.
        entries: the neighbors, at least one.
        model: the sub-network whose features the rows are for. Where features are units, each is averaged over the
            neighbors that have it; one that none has is 0.

    Returns:
        Mean rows float64 (classes, features), mean biases float64 (classes,), and how many neighbors' classes each
        class's mean is taken over. Rows and biases of classes that no neighbor knows are 0.
    """
    classes, classifier = len(task.labels), model.architecture.classifier_name(model.network)
    axes = tensor_axes(model.layers).get(f"{classifier}.weight", [])
    (columns,) = kept_indices(axes, model.mask()).values() if axes else [np.arange(model.classifier.in_features)]
    rows, holders = torch.zeros(2, classes, len(columns), dtype=torch.float64)
    biases, counts = torch.zeros(classes, dtype=torch.float64), [0] * classes
    for entry in entries:
        (entry_columns,) = kept_indices(axes, entry.mask).values() if axes else [columns]
        _, places, entry_places = np.intersect1d(columns, entry_columns, return_indices=True)
        with entry.open_weights() as file:
            weight = file.get_tensor(f"{PREFIX}{classifier}.weight").double()
            bias = file.get_tensor(f"{PREFIX}{classifier}.bias").double()
        weight, bias = weight - weight.mean(0), bias - bias.mean()
        for i, matches in enumerate(task.matches(entry.task)):
            for j in matches:
                rows[i, places] += weight[j, entry_places]
                holders[i, places] += 1
                biases[i] += bias[j]
                counts[i] += 1
    return rows / holders.clamp(min=1), biases / torch.tensor(counts, dtype=torch.float64).clamp(min=1), counts


def make_head(
    kind: str,
    model: MetaPrunedForImageClassification,
    images: ImageSet,
    task: Task,
    entries: Sequence,
    device: torch.device,
) -> str:
    """Set the classifier of a model, in place.

    Args:
        kind: "random" leaves the classifier as it is, as the papers do. "ridge" computes it from the images alone.
            "stitched" takes the neighbors' mean row for each class that they know, and ridge rows for the others.
            "auto" is ridge with the neighbors' rows as the prior (see `ridge_head`).
        model: the model.
        images: the task's training images.
        task: the task's labels.
        entries: the neighbors; may be empty.
        device: where to compute.

    Returns:
        A description for the report.

    Raises:
        DataError: a feature of an image is not finite.
    """
    if kind == "random":
        return "random"
    features = finite_features(model, images, device)
    rows, biases, counts = (None, None, [0] * len(task.labels))
    if entries and kind != "ridge":
        rows, biases, counts = neighbor_rows(task, entries, model)
    shared_classes = [i for i, n in enumerate(counts) if n]
    head = ridge_head(features, images.targets, len(task.labels), rows if shared_classes else None)
    if kind == "stitched" and shared_classes:
        assert rows is not None and biases is not None
        head.weight[shared_classes], head.bias[shared_classes] = rows[shared_classes], biases[shared_classes]
    head.put_into(model.classifier)
    n_shared = len(shared_classes)
    origin = f"rows of {n_shared} classes known to neighbors" if n_shared else "no class known to neighbors"
    return f"{kind}: {origin}, ridge lambda {head.ridge_lambda:g}, prior {head.prior_scale:g}, scale {head.scale:.3g}"

"""Classifiers in closed form on a sub-network's own features, which are useful before any training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ..data.images import ImageSet
from ..data.task import Task
from ..errors import DataError
from ..models.modeling import MetaPrunedForImageClassification
from ..training.forward import extract_features
from ..trunk.decoder import Decoder
from .averaging import PREFIX

LAMBDAS = tuple(10.0**e for e in range(-4, 4))
"""Ridge penalties to choose from, in units of the features' mean square."""
PRIOR_SCALES = (0.0, 0.5, 1.0)
"""Weights of the neighbors' rows to choose from; 1 is the weight that fits the classes best by least squares."""
TEMPERATURES = torch.logspace(-1, 3, 81, dtype=torch.float64)
"""Factors of the logits to choose from."""


@dataclass
class LinearHead:
    """A linear classifier, and how it was computed."""

    weight: torch.Tensor
    """Rows of the classes: float64 (classes, features)."""
    bias: torch.Tensor
    """Biases of the classes: float64 (classes,)."""
    ridge_lambda: float = float("nan")
    """The ridge penalty, one of `LAMBDAS`."""
    prior_scale: float = 0.0
    """The weight of the neighbors' rows, one of `PRIOR_SCALES`."""
    scale: float = 1.0
    """The factor of the logits, one of `TEMPERATURES`, which `weight` and `bias` contain."""
    error: float = float("nan")
    """The mean squared error of the one-hot classes by leave-one-out, before the scaling."""

    def put_into(self, layer: nn.Linear) -> None:
        """Copy the classifier into a layer of its shape."""
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            layer.bias.copy_(self.bias)


def ridge_head(
    features: torch.Tensor, targets: torch.Tensor, classes: int, prior: torch.Tensor | None = None
) -> LinearHead:
    """Return a ridge classifier with a prior, whose penalty and logit scale are chosen by leave-one-out.

    It minimizes ``|Y - X W' - b|^2 + lambda |W - beta W0|^2`` in closed form. X are the features, Y the one-hot classes
    and W0 is the `prior`. lambda and beta have the smallest leave-one-out squared error, which ridge regression gives
    in closed form.

    The logits are then scaled to the smallest leave-one-out cross-entropy, so that training starts from calibrated
    probabilities. If the classes can be separated, this scale would be infinite, and with logits in the hundreds
    training learns nothing until an image is wrong, and then destroys everything. The cross-entropy therefore counts
    one more image per class, which is taken for each class equally often (Laplace's rule of succession; cf. Platt,
    1999).

    Args:
        features: float64 (images, features).
        targets: int64 (images,), from 0 to ``classes - 1``.
        classes: number of classes.
        prior: rows that the classifier is drawn to: float (classes, features), 0 for classes without one.
    """
    x_mean, y = features.mean(0), F.one_hot(targets, classes).double()
    x, y_mean = features - x_mean, y.mean(0)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    unit = (s.square().mean() + 1e-12).item()
    prior = torch.zeros(classes, features.shape[1], dtype=torch.float64) if prior is None else prior.double()
    prior_logits = x @ prior.T
    fit = (prior_logits * (y - y_mean)).sum() / prior_logits.square().sum().clamp(min=1e-12)  # least squares scale
    best: tuple[float, LinearHead, torch.Tensor] | None = None
    for prior_scale in PRIOR_SCALES if prior_logits.any() else (0.0,):
        beta = prior_scale * fit.clamp(min=0).item()
        residual = y - y_mean - beta * prior_logits
        projected_residual = u.T @ residual
        for factor in LAMBDAS:
            shrink = s.square() / (s.square() + factor * unit)
            fitted_residual = u @ (shrink[:, None] * projected_residual)
            leverage = (u.square() @ shrink + 1.0 / len(x)).clamp(max=1 - 1e-6)
            leave_one_out = (fitted_residual - leverage[:, None] * residual) / (1.0 - leverage)[:, None]
            error = (residual - leave_one_out).square().mean().item()
            if best is None or error < best[0]:
                w = beta * prior + (vt.T @ ((s / (s.square() + factor * unit))[:, None] * projected_residual)).T
                head = LinearHead(w, y_mean - w @ x_mean, factor, prior_scale, error=error)
                best = (error, head, leave_one_out + beta * prior_logits + y_mean)
    assert best is not None
    head, logits = best[1], best[2]
    smoothing = classes / (len(x) + classes)
    losses = torch.stack([F.cross_entropy(t * logits, targets, label_smoothing=smoothing) for t in TEMPERATURES])
    head.scale = TEMPERATURES[losses.argmin()].item()
    head.weight, head.bias = head.weight * head.scale, head.bias * head.scale
    return head


def neighbor_rows(task: Task, entries: Sequence, classifier: str) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Return the mean of the neighbors' classifier rows for each class of a task.

    The rows are centered within each neighbor first, because a constant that is added to all rows of a softmax
    classifier changes nothing.

    Args:
        task: the task.
        entries: the neighbors, at least one.
        classifier: the name of the classifier's module in the network.

    Returns:
        Mean rows float64 (classes, features), mean biases float64 (classes,), and how many neighbors' classes each
        class's mean is taken over. Rows and biases of classes that no neighbor knows are 0.
    """
    classes = len(task.labels)
    rows: torch.Tensor | None = None
    biases, counts = torch.zeros(classes, dtype=torch.float64), [0] * classes
    for entry in entries:
        with entry.open_weights() as file:
            weight = file.get_tensor(f"{PREFIX}{classifier}.weight").double()
            bias = file.get_tensor(f"{PREFIX}{classifier}.bias").double()
        weight, bias = weight - weight.mean(0), bias - bias.mean()
        if rows is None:
            rows = torch.zeros(classes, weight.shape[1], dtype=torch.float64)
        for i, matches in enumerate(task.matches(entry.task)):
            for j in matches:
                rows[i] += weight[j]
                biases[i] += bias[j]
                counts[i] += 1
    assert rows is not None
    divisors = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    return rows / divisors[:, None], biases / divisors, counts


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
    name = model.architecture.classifier_name(model.network)
    rows, biases, counts = (None, None, [0] * len(task.labels))
    if entries and kind != "ridge":
        rows, biases, counts = neighbor_rows(task, entries, name)
    shared_classes = [i for i, n in enumerate(counts) if n]
    head = ridge_head(features, images.targets, len(task.labels), rows if shared_classes else None)
    if kind == "stitched" and shared_classes:
        assert rows is not None and biases is not None
        head.weight[shared_classes], head.bias[shared_classes] = rows[shared_classes], biases[shared_classes]
    head.put_into(model.classifier)
    n_shared = len(shared_classes)
    origin = f"rows of {n_shared} classes known to neighbors" if n_shared else "no class known to neighbors"
    return f"{kind}: {origin}, ridge lambda {head.ridge_lambda:g}, prior {head.prior_scale:g}, scale {head.scale:.3g}"


def set_decoded_head(
    model: MetaPrunedForImageClassification,
    decoder: Decoder,
    teacher_head: LinearHead,
    images: ImageSet,
    classes: int,
    device: torch.device,
) -> str:
    """Set the classifier of a sub-network that tells the base's features, in place.

    It is a ridge classifier on the features that the decoder tells, drawn to the base's own classifier (see
    `ridge_head`), and then one with the decoder: it costs what any classifier costs.

    Args:
        model: the model.
        decoder: the map of its features to those of the base.
        teacher_head: the base's classifier of the task.
        images: the task's training images.
        classes: number of classes.
        device: where to compute.

    Returns:
        A description for the report.

    Raises:
        DataError: a feature of an image is not finite.
    """
    features = decoder(finite_features(model, images, device))
    head = ridge_head(features, images.targets, classes, teacher_head.weight)
    head.bias = head.weight @ decoder.bias.double() + head.bias
    head.weight = head.weight @ decoder.weight.double()
    head.put_into(model.classifier)
    return f"decoded: ridge lambda {head.ridge_lambda:g}, prior {head.prior_scale:g}, scale {head.scale:.3g}"


def finite_features(model: MetaPrunedForImageClassification, images: ImageSet, device: torch.device) -> torch.Tensor:
    """Return a model's features of images, see `extract_features`.

    Raises:
        DataError: a feature is not finite.
    """
    features = extract_features(model, images, device)
    if not torch.isfinite(features).all():
        raise DataError(
            "the sub-network's features of the images are not finite: choose other neighbors, or statistics='new'"
        )
    return features

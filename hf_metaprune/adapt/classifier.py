"""Classifiers that are useful before any training step: closed-form on the sub-network's own features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..data.images import ImageSet
from ..data.task import Task
from ..errors import DataError
from ..models.modeling import MetaPrunedForImageClassification
from ..training.forward import extract_features
from .averaging import PREFIX

LAMBDAS = tuple(10.0**e for e in range(-4, 4))  # ridge penalties tried, in units of the features' mean square
PRIOR_SCALES = (0.0, 0.5, 1.0)  # how much of the neighbors' rows is taken as known, tried in turn
TEMPERATURES = torch.logspace(-1, 3, 81, dtype=torch.float64)  # inverse temperatures of the logits


@dataclass
class LinearHead:
    """Rows (classes, features) and biases (classes,) of a classifier, float64, with how they were found."""

    weight: torch.Tensor
    bias: torch.Tensor
    ridge_lambda: float = float("nan")
    prior_scale: float = 0.0
    scale: float = 1.0


def ridge_head(
    features: torch.Tensor, targets: torch.Tensor, classes: int, prior: torch.Tensor | None = None
) -> LinearHead:
    """A ridge classifier drawn towards known rows, its penalty and logit scale chosen by leave-one-out.

    Minimizes ``|Y - X W' - b|^2 + lambda |W - beta W0|^2`` in closed form, X the features, Y the one-hot classes, W0
    the `prior` (zero rows for unknown classes). lambda and beta are those with the smallest leave-one-out squared
    error, which ridge regression has in closed form; the logits are then scaled to the smallest leave-one-out
    cross-entropy, so that training starts from calibrated probabilities. One more image of each class that is taken
    for any class keeps the scale finite where all are told apart (Laplace's rule of succession; cf. Platt, 1999):
    with logits in the hundreds nothing is learnt until an image is wrong, and then everything is unlearnt.

    Args:
        features: float64 (n, d). targets: int64 (n,). prior: (classes, d) or None.
    """
    x_mean, y = features.mean(0), F.one_hot(targets, classes).double()
    x, y_mean = features - x_mean, y.mean(0)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    unit = (s.square().mean() + 1e-12).item()
    prior = torch.zeros(classes, features.shape[1], dtype=torch.float64) if prior is None else prior.double()
    guess = x @ prior.T
    fit = (guess * (y - y_mean)).sum() / guess.square().sum().clamp(min=1e-12)  # least squares scale of the prior
    best: tuple[float, LinearHead, torch.Tensor] | None = None
    for share in PRIOR_SCALES if guess.any() else (0.0,):
        beta = share * fit.clamp(min=0).item()
        rest = y - y_mean - beta * guess
        projected = u.T @ rest
        for factor in LAMBDAS:
            shrink = s.square() / (s.square() + factor * unit)
            fitted = u @ (shrink[:, None] * projected)
            leverage = (u.square() @ shrink + 1.0 / len(x)).clamp(max=1 - 1e-6)
            left_out = (fitted - leverage[:, None] * rest) / (1.0 - leverage)[:, None]
            error = (rest - left_out).square().mean().item()
            if best is None or error < best[0]:
                w = beta * prior + (vt.T @ ((s / (s.square() + factor * unit))[:, None] * projected)).T
                best = (error, LinearHead(w, y_mean - w @ x_mean, factor, share), left_out + beta * guess + y_mean)
    assert best is not None
    head, logits = best[1], best[2]
    doubt = classes / (len(x) + classes)
    losses = torch.stack([F.cross_entropy(t * logits, targets, label_smoothing=doubt) for t in TEMPERATURES])
    head.scale = TEMPERATURES[losses.argmin()].item()
    head.weight, head.bias = head.weight * head.scale, head.bias * head.scale
    return head


def neighbor_rows(task: Task, entries: Sequence, classifier: str) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Classifier rows that neighbors have for the task's classes: mean rows (classes, d), biases (classes,), counts.

    Rows and biases of classes that no neighbor knows are zero. Rows are centered within each neighbor, since a
    constant added to all rows of a softmax classifier means nothing.
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
        for i, same in enumerate(task.matches(entry.task)):
            for j in same:
                rows[i] += weight[j]
                biases[i] += bias[j]
                counts[i] += 1
    assert rows is not None
    held = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    return rows / held[:, None], biases / held, counts


def make_head(
    kind: str,
    model: MetaPrunedForImageClassification,
    images: ImageSet,
    task: Task,
    entries: Sequence,
    device: torch.device,
) -> str:
    """Set the classifier of `model`, in place, and say how in a few words.

    `kind`: "random" leaves it as it is (the papers' way); "ridge" ignores neighbors' classifiers; "stitched" takes
    the mean row of each class that neighbors know, and ridge rows for the others; "auto" is ridge drawn towards the
    neighbors' rows (see `ridge_head`), which is plain ridge where they know no class.
    """
    if kind == "random":
        return "random"
    features = extract_features(model, images, device)
    if not torch.isfinite(features).all():
        raise DataError(
            "the sub-network's features of the images are not finite: choose other neighbors, or recalibrate"
        )
    name = model.architecture.classifier_name(model.network)
    rows, biases, counts = (None, None, [0] * len(task.labels))
    if entries and kind != "ridge":
        rows, biases, counts = neighbor_rows(task, entries, name)
    known = [i for i, n in enumerate(counts) if n]
    head = ridge_head(features, images.targets, len(task.labels), rows if known else None)
    if kind == "stitched" and known:
        assert rows is not None and biases is not None
        head.weight[known], head.bias[known] = rows[known], biases[known]
    with torch.no_grad():
        model.classifier.weight.copy_(head.weight)
        model.classifier.bias.copy_(head.bias)
    origin = f"rows of {len(known)} classes known to neighbors" if known else "no class known to neighbors"
    return f"{kind}: {origin}, ridge lambda {head.ridge_lambda:g}, prior {head.prior_scale:g}, scale {head.scale:.3g}"

"""Ridge classifiers in closed form, whose penalty is chosen by leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

LAMBDAS = tuple(10.0**e for e in range(-4, 4))
"""Ridge penalties to choose from, in units of the features' mean square."""
PRIOR_SCALES = (0.0, 0.5, 1.0)
"""Weights of the neighbors' rows to choose from; 1 is the weight that fits the classes best by least squares."""
VIRTUAL_IMAGES = (0, 5, 25, 100, 500)
"""How many images the mean of a known class may stand for, to choose from."""
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
    """The weight of the prior's rows, one of `PRIOR_SCALES`."""
    virtual_images: int = 0
    """How many images the mean of a known class stood for, one of `VIRTUAL_IMAGES`."""
    scale: float = 1.0
    """The factor of the logits, one of `TEMPERATURES`, which `weight` and `bias` contain."""
    error: float = float("nan")
    """The mean squared error of the one-hot classes by leave-one-out, before the scaling."""

    def put_into(self, layer: nn.Linear) -> None:
        """Copy the classifier into a layer of its shape."""
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            layer.bias.copy_(self.bias)


@dataclass(frozen=True)
class KnownClasses:
    """Means of features of classes, from more images than those at hand."""

    classes: torch.Tensor
    """The classes: int64 (known,)."""
    means: torch.Tensor
    """Their means: float64 (known, features)."""


def ridge_head(
    features: torch.Tensor,
    targets: torch.Tensor,
    classes: int,
    prior: torch.Tensor | None = None,
    known: KnownClasses | None = None,
) -> LinearHead:
    """Return a ridge classifier with a prior, whose penalty and logit scale are chosen by leave-one-out.

    It minimizes ``|Y - X W' - b|^2 + lambda |W - beta W0|^2`` in closed form. X are the features, Y the one-hot classes
    and W0 is the `prior`. lambda and beta have the smallest leave-one-out squared error, which ridge regression gives
    in closed form.

    The mean of a known class counts like some more images of it that all have these features, and a class's images
    count together as much as another's. How many they are is chosen by the same error, of the images at hand alone:
    means that do not help these, because they are of other things or of other photos, count nothing.

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
        known: means of classes that are known from other images.
    """
    prior = torch.zeros(classes, features.shape[1], dtype=torch.float64) if prior is None else prior.double()
    best: tuple[LinearHead, torch.Tensor] | None = None
    for n_virtual in VIRTUAL_IMAGES if known is not None else (0,):
        head, logits = _ridge(features, F.one_hot(targets, classes).double(), prior, known, n_virtual)
        if best is None or head.error < best[0].error:
            best = (head, logits)
    assert best is not None
    head, logits = best
    smoothing = classes / (len(features) + classes)
    losses = torch.stack([F.cross_entropy(t * logits, targets, label_smoothing=smoothing) for t in TEMPERATURES])
    head.scale = TEMPERATURES[losses.argmin()].item()
    head.weight, head.bias = head.weight * head.scale, head.bias * head.scale
    return head


def _ridge(
    features: torch.Tensor, one_hot: torch.Tensor, prior: torch.Tensor, known: KnownClasses | None, n_virtual: int
) -> tuple[LinearHead, torch.Tensor]:
    """Return the best ridge classifier where a known class has so many virtual images, and its leave-one-out logits."""
    n, weights = len(features), torch.ones(len(features), dtype=torch.float64)
    if known is not None and n_virtual:
        features = torch.cat([features, known.means])
        one_hot = torch.cat([one_hot, F.one_hot(known.classes, one_hot.shape[1]).double()])
        weights = torch.cat([weights, torch.full((len(known.means),), float(n_virtual), dtype=torch.float64)])
        class_weights = one_hot.T @ weights
        weights = weights * (class_weights[class_weights > 0].mean() / (one_hot @ class_weights))
    share = weights / weights.sum()
    x_mean, y_mean, root = share @ features, share @ one_hot, weights.sqrt()[:, None]
    x, y = root * (features - x_mean), root * (one_hot - y_mean)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    unit = (s.square().mean() + 1e-12).item()
    prior_logits = x @ prior.T
    fit = (prior_logits * y).sum() / prior_logits.square().sum().clamp(min=1e-12)  # least squares scale
    best: tuple[LinearHead, torch.Tensor] | None = None
    for prior_scale in PRIOR_SCALES if prior_logits.any() else (0.0,):
        beta = prior_scale * fit.clamp(min=0).item()
        residual = y - beta * prior_logits
        projected_residual = u.T @ residual
        for factor in LAMBDAS:
            shrink = s.square() / (s.square() + factor * unit)
            fitted_residual = u @ (shrink[:, None] * projected_residual)
            leverage = (u.square() @ shrink + share).clamp(max=1 - 1e-6)[:, None]
            left_out = (fitted_residual - leverage * residual) / (1.0 - leverage)
            error = ((residual - left_out) / root)[:n].square().mean().item()
            if best is None or error < best[0].error:
                w = beta * prior + (vt.T @ ((s / (s.square() + factor * unit))[:, None] * projected_residual)).T
                logits = ((left_out + beta * prior_logits) / root)[:n] + y_mean
                best = (LinearHead(w, y_mean - w @ x_mean, factor, prior_scale, n_virtual, error=error), logits)
    assert best is not None
    return best

"""The classifier of a sub-network that tells the base's features."""

from __future__ import annotations

import torch

from ..data.images import ImageSet
from ..models.modeling import MetaPrunedForImageClassification
from ..training.forward import finite_features
from ..training.ridge import LinearHead, ridge_head
from .decoder import Decoder


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

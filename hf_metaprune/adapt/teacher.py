"""The whole base as the teacher of its sub-network, on images without labels."""

from __future__ import annotations

import torch

from ..data.images import ImageSet
from ..sizing.cost_model import count_flops
from ..sizing.inputs import AdaptInputs
from ..training.forward import accuracy, extract_features, predict_logits
from ..training.record import RunRecord
from ..training.soft_labels import SoftLabels
from .classifier import ridge_head


def make_soft_labels(inputs: AdaptInputs, photos: ImageSet, evaluation: ImageSet, record: RunRecord) -> SoftLabels:
    """Return the answers of the whole base to images without labels.

    The base gets a classifier in closed form from the task's labeled images, see `ridge_head`.

    Args:
        inputs: the base and the task.
        photos: the images without labels.
        evaluation: the task's test images, to measure the base on; may be empty.
        record: receives the FLOPs.
    """
    images, model = inputs.images, inputs.base.whole(inputs.task.labels)
    head = ridge_head(extract_features(model, images, inputs.device), images.targets, len(inputs.task.labels))
    with torch.no_grad():
        model.classifier.weight.copy_(head.weight)
        model.classifier.bias.copy_(head.bias)
    logits = predict_logits(model, photos, inputs.device)
    record.preparation_flops += (len(images) + len(photos)) * count_flops(model, images.images[:1])[0]
    return SoftLabels(photos, logits, accuracy(model, evaluation, inputs.device))

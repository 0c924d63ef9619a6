"""The whole base as the teacher of its sub-network."""

from __future__ import annotations

from dataclasses import dataclass

from ..data.images import ImageSet
from ..models.class_means import ClassMeans
from ..models.modeling import MetaPrunedForImageClassification
from ..sizing.cost_model import count_flops
from ..sizing.inputs import AdaptInputs
from ..training.forward import accuracy, extract_features, predict_logits
from ..training.record import RunRecord
from ..training.ridge import LinearHead, ridge_head
from ..training.soft_labels import SoftLabels
from .voters import ClassVotes


@dataclass(frozen=True)
class Teacher:
    """The whole base with a classifier in closed form from the task's labeled images."""

    model: MetaPrunedForImageClassification
    """The base."""
    head: LinearHead
    """Its classifier, in float64."""
    accuracy: float
    """Its accuracy on the task's test images, in [0, 1]; NaN if there are none."""
    class_means: ClassMeans
    """The means of its features by class."""


def make_teacher(
    inputs: AdaptInputs, evaluation: ImageSet, record: RunRecord, votes: ClassVotes | None = None
) -> Teacher:
    """Return the whole base as the teacher of a task.

    Args:
        inputs: the base and the task.
        evaluation: the task's test images, to measure the base on; may be empty.
        record: receives the FLOPs.
        votes: what the bank's entries know of the classes.
    """
    images, labels = inputs.images, inputs.task.labels
    model = inputs.base.whole(labels)
    features = extract_features(model, images, inputs.device)
    head = ridge_head(features, images.targets, len(labels), known=votes.known if votes is not None else None)
    head.put_into(model.classifier)
    record.preparation_flops += len(images) * count_flops(model, images.images[:1])[0]
    means = ClassMeans.of(features.numpy(), images.targets.numpy(), len(labels))
    return Teacher(model, head, accuracy(model, evaluation, inputs.device), means)


def make_soft_labels(teacher: Teacher, photos: ImageSet, inputs: AdaptInputs, record: RunRecord) -> SoftLabels:
    """Return the teacher's answers to images without labels.

    Args:
        teacher: the teacher.
        photos: the images without labels.
        inputs: the device.
        record: receives the FLOPs.
    """
    logits = predict_logits(teacher.model, photos, inputs.device)
    record.preparation_flops += len(photos) * count_flops(teacher.model, photos.images[:1])[0]
    return SoftLabels(photos, logits)

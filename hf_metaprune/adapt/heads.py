"""The classifier of a model while it is made: computed at first, and again whenever its features have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..masks.mask import Mask
from ..models.modeling import MetaPrunedForImageClassification
from ..text import quantity
from ..training.feature_teacher import FeatureTeacher
from ..trunk.decoded_head import set_decoded_head
from ..trunk.decoder import Decoder
from .classifier import make_head

if TYPE_CHECKING:
    from .plan import Plan


class Heads:
    """Computes classifiers for a model of a plan.

    Args:
        plan: the plan.
        mask: the units of the model.
    """

    def __init__(self, plan: Plan, mask: Mask) -> None:
        self.plan = plan
        trunk = plan.voters.trunk if plan.options.strategy == "trunk" else None
        self.decoder = trunk.decoder(mask).layer() if trunk is not None else None

    def set(self, model: MetaPrunedForImageClassification) -> str:
        """Set the classifier of a model, in place, and return a description for the report."""
        plan, data, device = self.plan, self.plan.data, self.plan.inputs.device
        if plan.options.head != "decoded":
            return make_head(plan.options.head or "auto", model, data.train, data.task, plan.voters.entries, device)
        assert self.decoder is not None and plan.teacher is not None  # it was checked before
        decoder = Decoder.of(self.decoder)
        text = set_decoded_head(model, decoder, plan.teacher.head, data.train, len(data.task.labels), device)
        return f"{text}{self._class_votes()}"

    def _class_votes(self) -> str:
        """Return what the entries told of the classes, for the report."""
        votes = self.plan.voters.class_votes
        if votes is None or self.plan.teacher is None:
            return ""
        n_known, n_classes = len(votes.known.classes), len(self.plan.data.task.labels)
        voters = quantity(len(votes.voters), "entry", "entries")
        count = self.plan.teacher.head.virtual_images
        return f"; {voters} knew {n_known} of {n_classes} classes, whose means count as {count} images"

    def feature_teacher(self) -> FeatureTeacher:
        """Return the base as the teacher of features, of labeled and unlabeled images."""
        plan, photos = self.plan, self.plan.inputs.photos
        assert self.decoder is not None and plan.teacher is not None  # it was checked before
        images = plan.data.train if photos is None else plan.data.train.joined(photos)
        return FeatureTeacher(plan.teacher.model, images, self.decoder, self.set)

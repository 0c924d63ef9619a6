"""The parts of an adapted model that pages, cards and publishing use; `AdaptResult` has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..models.modeling import MetaPrunedForImageClassification
from .misclassified import Mistake
from .report import AdaptReport


class AdaptedModel(Protocol):
    """A model with its report."""

    model: MetaPrunedForImageClassification
    """The model, in eval mode."""
    report: AdaptReport
    """The measurements."""
    folder: Path | None
    """The folder that the model was loaded from, if it was."""

    @property
    def mistakes(self) -> Sequence[Mistake]:
        """Test images that the model classifies wrongly, the most certain ones first."""

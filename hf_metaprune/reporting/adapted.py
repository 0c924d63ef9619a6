"""What pages, cards and publishing need of an adapted model; `AdaptResult` has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..models.modeling import MetaPrunedForImageClassification
from .misclassified import Mistake
from .report import AdaptReport


class Adapted(Protocol):
    """A model with what was measured of it."""

    model: MetaPrunedForImageClassification
    report: AdaptReport
    folder: Path | None

    @property
    def mistakes(self) -> Sequence[Mistake]:
        """The test images that it is most wrong about."""

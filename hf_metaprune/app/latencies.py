"""Estimates of how long models of the bank's base take per image on this machine, before a model is made."""

from __future__ import annotations

import threading

import numpy as np
import torch

from ..masks.mask import Mask, keep_count
from ..models.base_model import BaseModel
from ..sizing.timing import latencies_ms

RATIOS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Ratios whose models are timed."""


class Latencies:
    """Milliseconds per image by ratio: measured once at `RATIOS`, and interpolated between them.

    The time of a network depends on how many units a layer has, and not on which. So one table serves all visitors.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self._milliseconds: list[float] | None = None
        self._lock = threading.Lock()

    def estimate(self, ratio: float) -> float:
        """Return the milliseconds per image of a model at a ratio; the first call measures the table."""
        with self._lock:
            if self._milliseconds is None:
                self._milliseconds = self._measure()
        return float(np.interp(ratio, RATIOS, self._milliseconds))

    def _measure(self) -> list[float]:
        masks = [
            Mask({name: range(keep_count(size, ratio)) for name, size in self.base.sizes.items()}, self.base.sizes)
            for ratio in RATIOS
        ]
        models = [self.base.slice(self.base.config(mask, ["any"])).eval() for mask in masks]
        return latencies_ms(models, torch.zeros(1, *self.base.preprocessing.input_size))

"""How long models of the bank's base take for an image on this machine, before one is made."""

from __future__ import annotations

import threading

import numpy as np
import torch

from ..masks.mask import Mask, keep_count
from ..models.base_model import BaseModel
from ..sizing.timing import latencies_ms

RATIOS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)


class Speeds:
    """Milliseconds of an image by the share of units removed: timed once, at a few shares, the others interpolated.

    A network's time depends on how many units a layer has, not on which; so it is one table for all visitors.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self._times: list[float] | None = None
        self._lock = threading.Lock()

    def __call__(self, ratio: float) -> float:
        """Of a model at a ratio; the first call takes the times."""
        with self._lock:
            if self._times is None:
                self._times = self._measured()
        return float(np.interp(ratio, RATIOS, self._times))

    def _measured(self) -> list[float]:
        masks = [
            Mask({name: range(keep_count(size, r)) for name, size in self.base.sizes.items()}, self.base.sizes)
            for r in RATIOS
        ]
        models = [self.base.slice(self.base.config(mask, ["any"])).eval() for mask in masks]
        return latencies_ms(models, torch.zeros(1, *self.base.preprocessing.input_size))

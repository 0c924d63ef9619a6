"""What a model costs where it runs: latency, the machine's kind, and energy if CodeCarbon is installed."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn

log = logging.getLogger(__name__)

WARM_UPS, WARM_MS = 3, 20.0
"""Passes that do not count: at least so many, for at least so long; caches take a while, whatever the network."""
TURNS, PASSES = 3, 5


def latency_ms(model: nn.Module, pixels: torch.Tensor) -> float:
    """Median milliseconds of a forward pass.

    Args:
        model: in eval mode.
        pixels: float (1, 3, height, width), on the model's device.
    """
    return latencies_ms([model], pixels)[0]


@torch.inference_mode()
def latencies_ms(models: Sequence[nn.Module], pixels: torch.Tensor) -> list[float]:
    """Median milliseconds of a forward pass of each model, as if it ran alone.

    All get the layout that the library trains and predicts in. They take turns of several passes, so that what else
    runs slows all of them alike; the first passes of a turn, which find the caches full of another model, do not count.
    """
    for model in models:
        model.to(memory_format=torch.channels_last)
    times: list[list[float]] = [[] for _ in models]
    for _ in range(TURNS):
        for model, found in zip(models, times, strict=True):
            warm: list[float] = []
            while len(warm) < WARM_UPS or sum(warm) < WARM_MS:
                warm.append(_pass_ms(model, pixels))
            found += [_pass_ms(model, pixels) for _ in range(PASSES)]
    return [statistics.median(found) for found in times]


def _pass_ms(model: nn.Module, pixels: torch.Tensor) -> float:
    began = time.perf_counter()
    model(pixels)
    if pixels.is_cuda:
        torch.cuda.synchronize(pixels.device)
    return 1000 * (time.perf_counter() - began)

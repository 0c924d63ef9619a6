"""Latency: how long a forward pass of a model takes on this device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn

WARM_UPS, WARM_MS = 3, 20.0
"""Smallest number and smallest total milliseconds of the passes that warm the caches and do not count."""
ROUNDS, PASSES = 3, 5
"""Number of turns of each model, and of the passes per turn that count."""


def latency_ms(model: nn.Module, pixels: torch.Tensor) -> float:
    """Return the median time of a forward pass, in milliseconds.

    Args:
        model: the model, in eval mode.
        pixels: float (1, 3, height, width), on the model's device.
    """
    return latencies_ms([model], pixels)[0]


@torch.inference_mode()
def latencies_ms(models: Sequence[nn.Module], pixels: torch.Tensor) -> list[float]:
    """Return the median time of a forward pass of each model, in milliseconds, as if it ran alone.

    The models take turns of several passes, so that other programs slow all models alike. The first passes of a turn do
    not count, because the caches still hold another model.

    Args:
        models: the models, in eval mode; they are changed to channels last, the layout that the library trains in.
        pixels: float (1, 3, height, width), on the models' device.
    """
    for model in models:
        model.to(memory_format=torch.channels_last)
    times: list[list[float]] = [[] for _ in models]
    for _ in range(ROUNDS):
        for model, model_times in zip(models, times, strict=True):
            warm_up_times: list[float] = []
            while len(warm_up_times) < WARM_UPS or sum(warm_up_times) < WARM_MS:
                warm_up_times.append(_pass_ms(model, pixels))
            model_times += [_pass_ms(model, pixels) for _ in range(PASSES)]
    return [statistics.median(model_times) for model_times in times]


def _pass_ms(model: nn.Module, pixels: torch.Tensor) -> float:
    start = time.perf_counter()
    model(pixels)
    if pixels.is_cuda:
        torch.cuda.synchronize(pixels.device)
    return 1000 * (time.perf_counter() - start)

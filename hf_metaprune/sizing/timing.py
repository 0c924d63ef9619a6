"""What a model costs where it runs: latency, the machine's kind, and energy if CodeCarbon is installed."""

from __future__ import annotations

import importlib.util
import logging
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def machine_kind(device: torch.device) -> str:
    """The kind of processor, and how much of it is used; never the machine's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine() or "a CPU"


@contextmanager
def measured_energy(found: dict[str, float]) -> Iterator[None]:
    """Fill `found` with ``energy_kwh`` and ``co2_kg`` of the block, if CodeCarbon is installed; never fails."""
    tracker = _tracker()
    try:
        yield
    finally:
        if tracker is not None:
            try:
                co2 = tracker.stop()
                data = tracker.final_emissions_data
                found |= {"energy_kwh": float(data.energy_consumed), "co2_kg": float(co2 or 0.0)}
            except Exception as error:  # another's code, and no part of the job
                log.info("CodeCarbon failed: %s", error)


def _tracker() -> Any:
    if importlib.util.find_spec("codecarbon") is None:
        return None
    try:
        from codecarbon import EmissionsTracker

        tracker = EmissionsTracker(save_to_file=False, log_level="critical", tracking_mode="process")
        tracker.start()
    except Exception as error:  # no sensor, no network, another version
        log.info("CodeCarbon cannot start: %s", error)
        return None
    return tracker

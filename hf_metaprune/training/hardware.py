"""The device that models run on: which one, its arithmetic, its kind and its memory."""

from __future__ import annotations

import contextlib
import platform
import sys
from functools import cache
from pathlib import Path

import torch
from accelerate import Accelerator

from ..errors import OptionError


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """Return a device that tensors can be made on.

    Args:
        device: a device or its name, such as "cpu" or "cuda:1"; None and "auto" pick the best one of this machine.

    Raises:
        OptionError: the device does not exist on this machine, or no tensor can be made on it.
    """
    if device is None or device == "auto":
        return Accelerator().device
    try:
        picked_device = torch.device(device)
        torch.zeros(1, device=picked_device).item()  # fails on "meta", too
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OptionError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    return picked_device


@cache
def prefers_bf16(device_type: str) -> bool:
    """Return whether the precision "auto" means bfloat16: only on CUDA devices that support it in hardware.

    On a CPU with avx512_bf16, bfloat16 was slower than float32 for the narrow networks that slicing leaves.
    """
    return device_type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return the context in which a model computes with a precision.

    Args:
        device: where the model runs.
        precision: "fp32", "bf16", or "auto", which is bfloat16 if `prefers_bf16` and float32 if not.
    """
    if precision == "bf16" or (precision == "auto" and prefers_bf16(device.type)):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def machine_kind(device: torch.device) -> str:
    """Return the kind of processor, and on a CPU the number of threads; never the machine's name."""
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


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory so far, in MB: that of the device's allocator on CUDA, that of the process elsewhere."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
    except ImportError:  # Windows
        return float("nan")

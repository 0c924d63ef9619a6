"""The device, its arithmetic, its kind and its memory."""

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
    """The device asked for, or the best one there is.

    Raises:
        OptionError: it does not exist here.
    """
    if device is None or device == "auto":
        return Accelerator().device
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # fails on "meta", too
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OptionError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    return chosen


@cache
def bf16_pays(device_type: str) -> bool:
    """Whether bfloat16 is chosen where nothing is said: native on CUDA, and never on CPUs.

    On a CPU with avx512_bf16 it was slower than float32 for the narrow networks that slicing leaves.
    """
    return device_type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """The autocast context for a `precision` of "auto", "fp32" or "bf16"."""
    if precision == "bf16" or (precision == "auto" and bf16_pays(device.type)):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


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


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held so far, in MB: of the device's allocator on CUDA, of the process elsewhere."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
    except ImportError:  # Windows
        return float("nan")

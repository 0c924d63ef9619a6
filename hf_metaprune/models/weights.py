"""Files of tensors: bytes that follow from what is in them, and tensors from a stranger's ``model.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import FormatError, reason
from ..files.layout import WEIGHTS

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def unreadable(path: Path, error: Exception) -> FormatError:
    """What to raise when a file of tensors cannot be read."""
    if not path.exists():
        return FormatError(f"{path} is missing")
    return FormatError(f"{path} cannot be read: {reason(error)}; it may be cut short, fetch it again")


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file by name, those of floating point in float32.

    Raises:
        FormatError: the file is missing or damaged; a tensor is of another type, or has values that are not finite.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error
    state = {}
    for name, tensor in stored.items():
        if tensor.dtype not in FLOATS + WHOLE:
            raise FormatError(f"{path}: tensor {name[:100]} is of type {tensor.dtype}")
        state[name] = tensor.float() if tensor.dtype in FLOATS else tensor
        if tensor.dtype in FLOATS and not torch.isfinite(state[name]).all():
            raise FormatError(f"{path}: tensor {name[:100]} has values that are not finite")
    return state


def check_fit(architecture: str, **wrong: Collection[str]) -> None:
    """Refuse tensors that are not those of a network.

    Args:
        wrong: names of tensors that are `reshaped`, `missing` or `unexpected`.

    Raises:
        FormatError: there are some; one is named.
    """
    what = {"reshaped": "has another shape", "missing": "is missing", "unexpected": "is none of its own"}
    for kind, names in wrong.items():
        if names:
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            raise FormatError(
                f"{WEIGHTS} of the base does not fit {architecture}: tensor {min(names)[:100]} {what[kind]}{more}; "
                "config and weights must be saved together, from one network"
            )


def stable_bytes(made: bytes) -> bytes:
    """A safetensors file with its metadata in order; the same tensors and metadata give the same bytes.

    safetensors writes the metadata in another order each time, and a model that is the same would have a new digest.
    """
    start = 8 + int.from_bytes(made[:8], "little")
    header = json.loads(made[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + made[start:]

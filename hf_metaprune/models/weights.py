"""Files of tensors: reading a stranger's ``model.safetensors``, and writing the same tensors as the same bytes."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ..errors import FormatError, reason
from ..files.layout import WEIGHTS
from ..files.reading import check_regular, is_present

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_TENSORS, MAX_DIMENSIONS = 20_000, 64
TENSOR_ERRORS = (OSError, SafetensorError, RuntimeError, TypeError, ValueError, OverflowError)
"""What safetensors and torch raise of files that are damaged, or state shapes that no tensor can have."""
INTEGER_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def unreadable_file_error(path: Path, error: Exception) -> FormatError:
    """Return the error to raise if a file of tensors cannot be read."""
    if not is_present(path):
        return FormatError(f"{path} is missing")
    return FormatError(f"{path} cannot be read: {reason(error)}; it may be cut short, fetch it again")


def check_tensor_count(path: Path) -> None:
    """Check that a file is a regular one, and does not list more tensors than any network has.

    Raises:
        FormatError: it lists too many, or is no regular file.
        OSError, SafetensorError: the file cannot be read.
    """
    check_regular(path)
    with safe_open(str(path), framework="pt") as file:
        if (count := len(file.keys())) > MAX_TENSORS:
            raise FormatError(f"{path} has {count} tensors; at most {MAX_TENSORS} are read")


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Load all tensors of a file by name, those of floating point in float32.

    Raises:
        FormatError: the file is missing, damaged or no regular file, or a tensor has an unusual dtype or a value that
            is not finite.
    """
    try:
        check_tensor_count(path)
        return {name: _checked(tensor, f"{path}: tensor {name[:100]}") for name, tensor in load_file(path).items()}
    except FormatError:
        raise
    except TENSOR_ERRORS as error:
        raise unreadable_file_error(path, error) from error


def _checked(tensor: torch.Tensor, place: str) -> torch.Tensor:
    """Return a copy, because a loaded tensor may lie in the file; one of floating point in float32."""
    if tensor.dtype not in FLOAT_DTYPES + INTEGER_DTYPES:
        raise FormatError(f"{place} is of type {tensor.dtype}")
    if tensor.ndim > MAX_DIMENSIONS:
        raise FormatError(f"{place} has {tensor.ndim} dimensions")
    copy = tensor.to(torch.float32 if tensor.dtype in FLOAT_DTYPES else tensor.dtype, copy=True)
    if tensor.dtype in FLOAT_DTYPES and not torch.isfinite(copy).all():
        raise FormatError(f"{place} has values that are not finite")
    return copy


def check_fit(architecture: str, **misfits: Collection[str]) -> None:
    """Refuse tensors that are not those of a network.

    Args:
        architecture: the network's name, for messages.
        misfits: names of tensors that are ``reshaped``, ``missing`` or ``unexpected``.

    Raises:
        FormatError: there is a misfit; the message names the first one.
    """
    what = {"reshaped": "has another shape", "missing": "is missing", "unexpected": "is not part of it"}
    for kind, names in misfits.items():
        if names:
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            raise FormatError(
                f"{WEIGHTS} of the base does not fit {architecture}: tensor {min(names)[:100]} {what[kind]}{more}; "
                "config and weights must be saved together, from one network"
            )


def sort_metadata(content: bytes) -> bytes:
    """Return a safetensors file with its metadata sorted, so that the same tensors give the same bytes.

    safetensors writes the metadata in another order each time, and the same model would have another digest.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]

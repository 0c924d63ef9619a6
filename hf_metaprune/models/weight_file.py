"""``model.safetensors`` of a sliced model: its tensors, and the metadata in its header (format version 1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from ..errors import FormatError
from ..files.layout import FORMAT_VERSION, SCORES, WEIGHTS
from ..files.storage import write_bytes
from ..masks.scores import ScoreMask
from .configuration import MetaPrunedConfig
from .score_file import save_scores
from .weights import check_tensor_count, sort_metadata, unreadable_file_error

FLOATS = frozenset({"F16", "F32", "BF16"})
INTEGERS = frozenset({"I8", "I16", "I32", "I64", "U8"})
"""Types of numbers in a file, as safetensors calls them, that a float or an integer tensor may have."""


def header_metadata(config: MetaPrunedConfig) -> dict[str, str]:
    """Return the metadata of the safetensors header, so that one range request is enough to check an entry."""
    base: dict[str, Any] = config.base_model or {}
    labels = [config.id2label[i] for i in range(config.num_labels)]
    return {
        "format": "pt",
        "format_version": str(FORMAT_VERSION),
        "base_model_sha256": str(base.get("sha256")),
        "masks_digest": config.mask().digest(),
        "labels": json.dumps(labels, ensure_ascii=False),
    }


def write_weights(
    folder: Path, state: Mapping[str, torch.Tensor], config: MetaPrunedConfig, scores: ScoreMask | None
) -> None:
    """Write tensors with `header_metadata` as ``model.safetensors``, and the score mask, if there is one, beside it."""
    write_bytes(folder / WEIGHTS, sort_metadata(save(dict(state), metadata=header_metadata(config))))
    if scores is not None:
        save_scores(scores, folder / SCORES, str((config.base_model or {}).get("sha256")))


def add_header(folder: Path, config: MetaPrunedConfig, scores: ScoreMask | None) -> None:
    """Put `header_metadata` into a ``model.safetensors`` that transformers wrote, and the score mask beside it.

    Models beyond one shard (5 GB) keep transformers' own header.
    """
    path = folder / WEIGHTS
    if path.exists():
        write_weights(folder, load_file(path), config, scores)
    elif scores is not None:
        save_scores(scores, folder / SCORES, str((config.base_model or {}).get("sha256")))


def check_tensors(path: Path, expected: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Check names, shapes and kinds of the tensors in a file by its header, and return the header's metadata.

    Args:
        path: the file.
        expected: the tensors that it should have, by name; they may be on the meta device.

    Raises:
        FormatError: the file cannot be read, or differs; the message names the first difference.
    """
    try:
        check_tensor_count(path)
        with safe_open(str(path), framework="pt") as file:
            metadata, names = file.metadata() or {}, set(file.keys())
            tensors_in_file = {n: (tuple((s := file.get_slice(n)).get_shape()), s.get_dtype()) for n in names}
    except (OSError, SafetensorError) as error:
        raise unreadable_file_error(path, error) from error
    if set(expected) != names:
        raise FormatError(f"{path}: tensors {sorted(set(expected) ^ names)[:3]} are missing or unexpected")
    for name, tensor in expected.items():
        shape, dtype = tensors_in_file[name]
        if shape != tuple(tensor.shape):
            raise FormatError(f"{path}: tensor {name} has shape {str(shape)[:100]}, not {tuple(tensor.shape)}")
        if dtype not in (FLOATS if tensor.is_floating_point() else INTEGERS):
            raise FormatError(f"{path}: tensor {name} has dtype {dtype}")
    return metadata


def check_metadata(
    metadata: Mapping[str, str], expected: Mapping[str, str], what: str, source: str, complete: bool = False
) -> None:
    """Check the metadata in the header of a file of weights.

    Args:
        metadata: the metadata of the file.
        expected: the metadata that it should have.
        what: the file's name, for messages.
        source: where the expected metadata comes from, for messages.
        complete: refuse a file that lacks some metadata.

    Raises:
        FormatError: the metadata differs, is incomplete, or is of a newer format version.
    """
    version = metadata.get("format_version", str(FORMAT_VERSION))
    if not version.isdecimal() or len(version) > 9:
        raise FormatError(f"{what}: its header's format_version is {version[:40]!r}")
    if int(version) > FORMAT_VERSION:
        raise FormatError(f"{what} has a newer format version: upgrade with `pip install -U hf-metaprune`")
    for key in ("base_model_sha256", "masks_digest", "labels"):
        if (complete or key in metadata) and metadata.get(key) != expected[key]:
            raise FormatError(f"{what}: its header's {key} is not that of {source}")

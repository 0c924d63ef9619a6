"""``mask_scores.safetensors``: the score mask of a model, one tensor per layer (format version 1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import BaseMismatchError, FormatError, OptionError
from ..files.layout import FORMAT_VERSION
from ..files.storage import write_bytes
from ..masks.scores import ScoreMask
from .weights import check_tensor_count, sort_metadata, unreadable_file_error

BYTES_PER_UNIT, HEADER_BYTES = 8, 2 << 20


def max_score_bytes(sizes: Mapping[str, int]) -> int:
    """Return how many bytes the file may have for a base with these layers."""
    return HEADER_BYTES + BYTES_PER_UNIT * sum(sizes.values())


def save_scores(scores: ScoreMask, path: Path, base_sha256: str) -> None:
    """Write a score mask in float32; the same scores give the same bytes.

    Args:
        scores: the score mask.
        path: file to write.
        base_sha256: sha256 of the base whose units the scores number.
    """
    metadata = {"format": "np", "format_version": str(FORMAT_VERSION), "base_model_sha256": base_sha256}
    write_bytes(path, sort_metadata(save({name: np.ascontiguousarray(scores[name]) for name in scores}, metadata)))


def load_scores(path: Path, sizes: Mapping[str, int], base_sha256: str) -> ScoreMask:
    """Load a score mask from a stranger's file, and check it.

    Args:
        path: the file.
        sizes: number of units per layer of the base.
        base_sha256: sha256 of the base that the scores must belong to.

    Raises:
        FormatError: the file is missing, damaged, too large or of a newer version; its layers are not those of the
            base; or a score is not finite, or below 0.
        BaseMismatchError: the scores belong to another base.
    """
    try:
        check_tensor_count(path)
        if path.stat().st_size > max_score_bytes(sizes):
            raise FormatError(f"{path} has {path.stat().st_size} bytes, more than scores of the base can have")
        with safe_open(str(path), framework="pt") as file:
            metadata, slices = file.metadata() or {}, {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            kinds = {part.get_dtype() for part in slices.values()}
            if shapes != {name: (size,) for name, size in sizes.items()}:
                raise FormatError(f"{path}: its layers are not those of the base")
            if not kinds <= {"F16", "BF16", "F32"}:
                raise FormatError(f"{path}: its scores are not floating-point numbers")
            stored_scores = {name: file.get_tensor(name).float().numpy() for name in sizes}
    except (OSError, SafetensorError) as error:
        raise unreadable_file_error(path, error) from error
    if metadata.get("format_version", str(FORMAT_VERSION)) != str(FORMAT_VERSION):
        raise FormatError(f"{path} is of another format version: upgrade with `pip install -U hf-metaprune`")
    if metadata.get("base_model_sha256") != base_sha256:
        raise BaseMismatchError(f"{path}: its scores are of another base")
    try:
        return ScoreMask(stored_scores)
    except OptionError as error:
        raise FormatError(f"{path}: {error}") from error

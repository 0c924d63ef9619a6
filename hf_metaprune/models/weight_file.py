"""``model.safetensors`` of a sliced model: tensors, and a header that tells what they are (format version 1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from ..errors import FormatError
from ..files.layout import FORMAT_VERSION, SCORES, WEIGHTS
from ..files.storage import write_bytes
from ..masks.scores import ScoreMask
from .configuration import MetaPrunedConfig
from .score_file import save_scores
from .weights import stable_bytes


def header_metadata(config: MetaPrunedConfig) -> dict[str, str]:
    """What the safetensors header says, so that a range request of it is enough to check an entry."""
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
    write_bytes(folder / WEIGHTS, stable_bytes(save(dict(state), metadata=header_metadata(config))))
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


def check_metadata(
    metadata: Mapping[str, str], wanted: Mapping[str, str], what: str, source: str, complete: bool = False
) -> None:
    """Check what the header of a file of weights says against what `source` says.

    Raises:
        FormatError: they differ; the file is of a newer format version; or something is missing that must be
            there (`complete`).
    """
    version = metadata.get("format_version", str(FORMAT_VERSION))
    if not version.isdecimal() or len(version) > 9:
        raise FormatError(f"{what}: its header's format_version is {version[:40]!r}")
    if int(version) > FORMAT_VERSION:
        raise FormatError(f"{what} has a newer format version: upgrade with `pip install -U hf-metaprune`")
    for key in ("base_model_sha256", "masks_digest", "labels"):
        if (complete or key in metadata) and metadata.get(key) != wanted[key]:
            raise FormatError(f"{what}: its header's {key} is not that of {source}")

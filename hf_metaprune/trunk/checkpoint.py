"""Checkpoints of teaching: a run that was killed goes on from the last one, and gives the same trunk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

from ..errors import FormatError, OptionError, reason
from ..files.reading import is_present
from ..files.storage import write_bytes
from ..models.weights import load_weights
from .teaching import Teaching

WEIGHT, MOMENTUM = "weight.", "optimizer."


def run_digest(teaching: Teaching) -> str:
    """Return a digest of all that decides what a run teaches: base, images, options and seed."""
    digest = hashlib.sha256(teaching.images.images.numpy().tobytes())
    settings = [teaching.base.sha256, dataclasses.asdict(teaching.options), teaching.seed]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def save_checkpoint(teaching: Teaching, path: Path, digest: str) -> None:
    """Write the state of a run, whole or not at all.

    Args:
        teaching: the run.
        path: file to write.
        digest: its `run_digest`.

    Raises:
        StorageError: the file cannot be written.
    """
    tensors = {WEIGHT + name: tensor.detach() for name, tensor in teaching.parameters.items()}
    for name, tensor in teaching.parameters.items():
        for key, value in teaching.optimizer.state.get(tensor, {}).items():
            if torch.is_tensor(value):
                tensors[f"{MOMENTUM}{key}.{name}"] = value
    metadata = {"digest": digest, "step": str(teaching.step_number), "seconds": f"{teaching.seconds:.1f}"}
    write_bytes(path, save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata))


def load_checkpoint(teaching: Teaching, path: Path, digest: str) -> bool:
    """Put a run into the state of its checkpoint; return False if there is none.

    Raises:
        OptionError: the checkpoint is of a run with other images, options or seed.
        FormatError: the checkpoint is damaged.
    """
    if not is_present(path):
        return False
    advice = f"delete {path} to begin anew"
    tensors = load_weights(path)
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("digest") != digest:
        raise OptionError(f"{path} is of a trunk with other images, options or base: use those, or {advice}")
    try:
        with torch.no_grad():
            for name, weight in teaching.parameters.items():
                weight.copy_(tensors.pop(WEIGHT + name))
        for full_name, value in tensors.items():
            key, _, name = full_name.removeprefix(MOMENTUM).partition(".")
            weight = teaching.parameters[name]
            state = teaching.optimizer.state.setdefault(weight, {})
            state[key] = value if key == "step" else value.to(weight).reshape(weight.shape)
        teaching.step_number, teaching.seconds = int(metadata["step"]), float(metadata["seconds"])
        if not 0 <= teaching.step_number <= teaching.options.steps or not 0 <= teaching.seconds < math.inf:
            raise ValueError("its number of steps or seconds is none")
    except (KeyError, ValueError, RuntimeError) as error:
        raise FormatError(f"{path} cannot be read: {reason(error)}; {advice}") from error
    return True

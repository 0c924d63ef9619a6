"""Fixtures of the tests of models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.modeling import MetaPrunedForImageClassification

LABELS = ["cat", "dog", "bee"]


@pytest.fixture
def model(base: BaseModel) -> MetaPrunedForImageClassification:
    torch.manual_seed(0)
    config = base.config(
        Mask.random(base.sizes, 0.6, 1), LABELS, synsets=["cat.n.01", None, None], ratio=0.6, method="x"
    )
    return base.slice(config).eval()


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def copies(path: Path) -> dict[str, torch.Tensor]:
    """Tensors that do not lie in the file: writing over a mapped file would end the process."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def edit_config(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(values))

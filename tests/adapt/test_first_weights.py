"""Whose weights a model starts with: the neighbors' if they hold enough of its units, or else the base's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hf_metaprune import Bank
from hf_metaprune.adapt.strategies import starts_from_neighbors
from hf_metaprune.adapt.voters import Voters
from hf_metaprune.config import AdaptOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.architectures.recipe import CONVOLUTIONAL, TRANSFORMER, Recipe
from hf_metaprune.similarity import Neighbor
from hf_metaprune.sizing.inputs import AdaptInputs


@pytest.mark.parametrize(("recipe", "share"), [(CONVOLUTIONAL, 0.4), (TRANSFORMER, 0.75)])
def test_the_family_says_how_much_neighbors_must_hold(
    bank: Bank, task_data: TaskData, monkeypatch: pytest.MonkeyPatch, recipe: Recipe, share: float
) -> None:
    entry = next(iter(bank))
    monkeypatch.setattr(type(bank.base.family), "recipe", recipe)
    inputs = AdaptInputs(
        bank.base, task_data.task, task_data.train, AdaptOptions(strategy="mvp"), 0.5, torch.device("cpu")
    )
    voters, held = Voters((Neighbor(entry, 1.0),)), entry.mask
    candidates = [held | Mask.random(bank.sizes, ratio) for ratio in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99)]
    shares = [held.n_kept / mask.n_kept for mask in candidates]
    assert min(shares) < 0.4 < max(shares)  # both sides of each family's share are looked at
    assert any(0.4 <= value < 0.75 for value in shares)
    for mask, value in zip(candidates, shares, strict=True):
        assert starts_from_neighbors(inputs, voters, mask) == (value >= share)
        assert starts_from_neighbors(
            replace(inputs, options=AdaptOptions(strategy="mvp", weights="neighbors")), voters, mask
        )
        assert not starts_from_neighbors(
            replace(inputs, options=AdaptOptions(strategy="mvp", weights="base")), voters, mask
        )

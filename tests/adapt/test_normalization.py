"""Which batch norm statistics a sub-network begins with, and which it keeps."""

from __future__ import annotations

import math

import pytest
import torch

from hf_metaprune.adapt import normalization
from hf_metaprune.adapt.normalization import final_statistics, set_first_statistics
from hf_metaprune.config import AdaptOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.sizing.inputs import AdaptInputs
from hf_metaprune.training.record import RunRecord
from hf_metaprune.training.ridge import LinearHead
from hf_metaprune.training.statistics import read_statistics, recalibrate

CPU = torch.device("cpu")


def inputs(base: BaseModel, data: TaskData, statistics: str) -> AdaptInputs:
    return AdaptInputs(base, data.task, data.train, AdaptOptions(statistics=statistics), 0.5, CPU)


def sliced(base: BaseModel, data: TaskData, ratio: float = 0.5) -> MetaPrunedForImageClassification:
    return base.slice(base.config(Mask.random(base.sizes, ratio, 0), data.task.labels))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-5) for name in one)


@pytest.mark.parametrize("choice", ["own", "moving", "new"])
def test_statistics_are_those_that_are_asked_for(base: BaseModel, task_data: TaskData, choice: str) -> None:
    model, record = sliced(base, task_data), RunRecord()
    own = read_statistics(model)
    name, n_images = set_first_statistics(model, inputs(base, task_data, choice), record)
    assert (name, n_images) == (("new", len(task_data.train)) if choice == "new" else ("own", 0))
    assert same(read_statistics(model), own) == (choice != "new")
    assert record.preparation_flops == 0


@pytest.mark.parametrize(
    ("errors", "chosen"),
    [
        ((1.0, 0.98, 0.99), "own"),  # a small gain may be chance
        ((1.0, 0.9, 0.95), "new"),
        ((1.0, 0.95, 0.9), "transferred"),
        ((1.0, math.nan, 0.9), "transferred"),
    ],
)
def test_the_statistics_with_the_least_error_are_chosen(
    base: BaseModel, task_data: TaskData, errors: tuple[float, ...], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, record, left = sliced(base, task_data), RunRecord(), list(errors)
    own = read_statistics(model)
    monkeypatch.setattr(
        normalization, "ridge_head", lambda *_: LinearHead(torch.empty(0), torch.empty(0), error=left.pop(0))
    )
    name, n_images = set_first_statistics(model, inputs(base, task_data, "auto"), record)
    assert name == chosen
    assert n_images == 4 * len(task_data.train)
    assert record.preparation_flops > 0  # the base's forward pass
    assert same(read_statistics(model), own) == (chosen == "own")
    new = sliced(base, task_data)
    recalibrate(new, task_data.train, CPU)
    assert same(read_statistics(model), read_statistics(new)) == (chosen == "new")


def test_what_is_transferred_to_a_whole_base_are_its_own_statistics(
    base: BaseModel, task_data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = base.whole(task_data.task.labels)
    own, errors = read_statistics(model), [1.0, 1.0, 0.5]
    monkeypatch.setattr(
        normalization, "ridge_head", lambda *_: LinearHead(torch.empty(0), torch.empty(0), error=errors.pop(0))
    )
    assert set_first_statistics(model, inputs(base, task_data, "auto"), RunRecord())[0] == "transferred"
    after = read_statistics(model)
    assert all(torch.allclose(after[name], own[name], rtol=1e-3, atol=1e-3) for name in own)


def test_a_network_without_batch_norms_is_left_alone(vit_base: BaseModel, task_data: TaskData) -> None:
    record = RunRecord()
    model = sliced(vit_base, task_data)
    assert set_first_statistics(model, inputs(vit_base, task_data, "auto"), record) == ("own", 0)
    assert record.preparation_flops == 0


def test_statistics_after_training_follow_those_before_it() -> None:
    assert [final_statistics(choice, "own", False) for choice in ("own", "new", "moving")] == ["fixed", "new", "moving"]
    assert [final_statistics("auto", first, True) for first in ("own", "new", "transferred")] == ["fixed", "new", "new"]
    assert final_statistics("auto", "own", False) == "new"

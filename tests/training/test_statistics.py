"""Batch norm statistics: those that are transferred, and those that training leaves."""

from __future__ import annotations

import pytest
import torch

from hf_metaprune.config import TrainingOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import OptionError
from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.training import statistics as training_statistics
from hf_metaprune.training.loop import fine_tune
from hf_metaprune.training.statistics import (
    read_statistics,
    recalibrate,
    set_statistics,
    statistics_images,
    transferred_statistics,
)

CPU = torch.device("cpu")


def statistics(mean: float, variance: float) -> dict[str, torch.Tensor]:
    return {"bn.running_mean": torch.tensor([mean]), "bn.running_var": torch.tensor([variance])}


def test_the_transferred_statistics_of_the_base_are_its_own() -> None:
    own, new = statistics(3.0, 4.0), statistics(5.0, 9.0)
    transferred = transferred_statistics(new, new, own)
    assert all(torch.allclose(transferred[name], own[name]) for name in own)


def test_the_shift_of_the_base_is_undone_in_units_of_deviation() -> None:
    """The images lie one deviation above the base's mean, and have half of its deviation."""
    own, base_new, new = statistics(0.0, 4.0), statistics(2.0, 1.0), statistics(70.0, 25.0)
    transferred = transferred_statistics(new, base_new, own)
    assert transferred["bn.running_var"].item() == pytest.approx(100.0)
    assert transferred["bn.running_mean"].item() == pytest.approx(70.0 - 10.0)


def test_a_channel_that_is_dead_in_the_base_gives_finite_statistics() -> None:
    dead = statistics(0.0, 0.0)
    transferred = transferred_statistics(statistics(1.0, 1.0), dead, dead)
    assert all(tensor.isfinite().all() for tensor in transferred.values())


@pytest.mark.parametrize("kind", ["fixed", "moving", "new"])
def test_training_leaves_the_statistics_that_it_is_asked_for(base: BaseModel, task_data: TaskData, kind: str) -> None:
    model = base.slice(base.config(Mask.random(base.sizes, 0.5, 0), task_data.task.labels))
    recalibrate(model, task_data.train, CPU)
    before = read_statistics(model)
    options = TrainingOptions(steps=4, batch_size=24, lr=0.01, eval_steps=(2,), precision="fp32")
    fine_tune(model, task_data.train, options, evaluation=task_data.evaluation, device=CPU, statistics=kind)
    after = read_statistics(model)
    recalibrate(model, task_data.train, CPU)
    new = read_statistics(model)

    def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return all(torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-4) for name in one)

    assert before
    assert same(after, before) == (kind == "fixed")
    assert same(after, new) == (kind == "new")
    set_statistics(model, before)
    assert same(read_statistics(model), before)


def test_a_kind_that_is_not_there_is_refused(base: BaseModel, task_data: TaskData) -> None:
    model = base.slice(base.config(Mask.random(base.sizes, 0.5, 0), task_data.task.labels))
    with pytest.raises(OptionError, match="must be one of moving, new, fixed"):
        fine_tune(model, task_data.train, TrainingOptions(steps=1), device=CPU, statistics="old")


def test_statistics_are_of_labeled_images_and_photos_alike(
    task_data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, photos = task_data.train.subset(range(10)), task_data.train.subset(range(10, 40))
    assert statistics_images(images, None, 0) is images
    everything = statistics_images(images, photos, 0)
    contents = lambda chosen: sorted(image.numpy().tobytes() for image in chosen.images)  # noqa: E731
    assert contents(everything) == contents(images.joined(photos))
    monkeypatch.setattr(training_statistics, "STATISTICS_IMAGES", 12)
    sample = statistics_images(images, photos, 0)
    assert len(sample) == 12
    assert 0 < len(set(contents(sample)) & set(contents(photos))) <= 12

"""Training on a teacher's answers to images without labels."""

from __future__ import annotations

import torch

from hf_metaprune.config import TrainingOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.training.forward import accuracy
from hf_metaprune.training.loop import TrainingResult, fine_tune
from hf_metaprune.training.soft_labels import SoftLabels

CPU = torch.device("cpu")


def train(
    base: BaseModel, task_data: TaskData, soft_labels: SoftLabels | None, **changes: float
) -> tuple[MetaPrunedForImageClassification, TrainingResult]:
    """Train on labeled images of three of the six classes."""
    torch.manual_seed(0)
    model = base.slice(base.config(Mask.random(base.sizes, 0.5, 0), task_data.task.labels))
    changes = {"distill_weight": 1.0} | changes
    options = TrainingOptions(steps=60, batch_size=24, lr=0.02, precision="fp32", **changes).closed()
    few = task_data.train.subset(torch.nonzero(task_data.train.targets < 3)[:, 0])
    return model, fine_tune(model, few, options, device=CPU, statistics="new", soft_labels=soft_labels)


def answers(task_data: TaskData) -> SoftLabels:
    """Those of a teacher that is always right."""
    logits = 8.0 * torch.nn.functional.one_hot(task_data.train.targets, 6).float()
    return SoftLabels(task_data.train, logits)


def test_a_teachers_answers_replace_labels(base: BaseModel, task_data: TaskData) -> None:
    alone, without = train(base, task_data, None)
    taught, with_answers = train(base, task_data, answers(task_data))
    assert accuracy(alone, task_data.evaluation, CPU) <= 0.5
    assert accuracy(taught, task_data.evaluation, CPU) > 0.8
    assert with_answers.images == without.images + 60 * 24
    assert with_answers.flops > 2 * without.flops


def test_answers_without_weight_teach_nothing(base: BaseModel, task_data: TaskData) -> None:
    wrong = SoftLabels(task_data.train, -answers(task_data).logits)
    sound, _ = train(base, task_data, answers(task_data), distill_weight=0.0)
    other, _ = train(base, task_data, wrong, distill_weight=0.0)
    for one, two in zip(sound.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_loss_is_none_where_the_answers_are_equal() -> None:
    soft_labels = SoftLabels(torch.empty(3), torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 0.0]]))  # type: ignore[arg-type]
    rows = torch.tensor([2, 0])
    assert soft_labels.loss(torch.tensor([[5.0, 5.0], [0.0, 1.0]]), rows, 1.0).item() == 0.0  # up to a constant
    loss = soft_labels.loss(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), rows, 3.0)
    teacher, student = (torch.tensor(v).div(3.0).softmax(0) for v in ([0.0, 0.0], [1.0, 0.0]))
    assert torch.isclose(loss, 9.0 * (teacher * (teacher / student).log()).sum() / 2)

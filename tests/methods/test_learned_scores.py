"""Methods that learn a score for every unit: AHNP and AMP."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from hf_metaprune.config import TrainingOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import OptionError
from hf_metaprune.masks.mask import Mask, keep_count
from hf_metaprune.methods import AhnpOptions, PruningJob, get_method
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.models.slicing import shrink
from hf_metaprune.training.learnable_scores import LearnableScores
from hf_metaprune.training.loop import TrainingState, fine_tune

CPU = torch.device("cpu")


@pytest.fixture(params=["resnet", "vit"])
def any_base(request: pytest.FixtureRequest, base: BaseModel, vit_base: BaseModel) -> BaseModel:
    return {"resnet": base, "vit": vit_base}[request.param]


def whole(base: BaseModel, data: TaskData) -> MetaPrunedForImageClassification:
    torch.manual_seed(0)
    return base.slice(base.config(Mask.full(base.sizes), data.task.labels)).eval()


def job(base: BaseModel, data: TaskData, **options: object) -> PruningJob:
    ahnp_options = AhnpOptions(**{"ratio": 0.7, "steps": 12, "batch_size": 24, "weight_lr": 0.001, **options})
    return PruningJob(base, data.train, data.task.labels, ahnp_options, CPU, seed=3)


@pytest.mark.parametrize("name", ["ahnp", "amp"])
def test_they_reach_the_ratio_follow_their_seed_and_leave_scores(
    any_base: BaseModel, task_data: TaskData, name: str
) -> None:
    models = [get_method(name).prune(job(any_base, task_data))[0] for _ in range(2)]
    mask, scores = models[0].mask(), models[0].score_mask
    assert {layer: len(units) for layer, units in mask.items()} == {
        layer: keep_count(size, 0.7) for layer, size in any_base.sizes.items()
    }
    assert mask == models[1].mask()
    assert scores == models[1].score_mask
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert scores.sizes == any_base.sizes
    for layer, units in mask.items():
        rest = np.setdiff1d(np.arange(len(scores[layer])), units)
        assert (scores[layer] > 0).all()
        assert scores[layer][units].min() >= scores[layer][rest].max()  # at its own ratio the scores give the mask
        if name == "ahnp":
            assert scores[layer][units].min() > scores[layer][rest].max()


@torch.no_grad()
def test_scores_of_zero_are_the_mask(any_base: BaseModel, task_data: TaskData) -> None:
    model = whole(any_base, task_data)
    mask = Mask.random(any_base.sizes, 0.5, 1)
    learnable = LearnableScores(model, 0.05, 1.0)
    for name, score in learnable.scores.items():
        score.data.zero_()
        score.data[mask[name].tolist()] = 1.0
    x = next(task_data.train.batches(4))[0]
    sliced = any_base.slice(any_base.config(mask, task_data.task.labels)).eval()
    sliced.classifier.load_state_dict(model.classifier.state_dict())
    assert torch.allclose(learnable(x).logits, sliced(x).logits, atol=1e-5)


@torch.no_grad()
def test_folding_changes_nothing_but_the_weights(any_base: BaseModel, task_data: TaskData) -> None:
    model = whole(any_base, task_data)
    learnable = LearnableScores(model, 0.05, 1.0)
    generator = torch.Generator().manual_seed(0)
    for score in learnable.parameters:
        score.data.uniform_(0.2, 2.0, generator=generator)
    x = next(task_data.train.batches(4))[0]
    before, scaled = model(x).logits, learnable(x).logits
    assert not torch.allclose(before, scaled, atol=1e-3)
    with learnable.temporarily_folded():
        assert torch.allclose(model(x).logits, scaled, atol=1e-6)
    assert torch.equal(model(x).logits, before)
    learnable.fold()
    assert torch.allclose(model(x).logits, scaled, atol=1e-6)


def test_scores_follow_what_is_sliced(any_base: BaseModel, task_data: TaskData) -> None:
    """A unit whose score is zero may go at any time: nothing else changes, and momentum stays where it was."""
    model = whole(any_base, task_data)
    learnable = LearnableScores(model, 0.05, 1.0)
    optimizer = torch.optim.AdamW([{"params": list(model.parameters())}, {"params": learnable.parameters, "lr": 0.05}])
    x = next(task_data.train.batches(8))[0]
    learnable(x).logits.square().sum().backward()
    optimizer.step()
    full, mask = model.mask(), Mask.random(any_base.sizes, 0.5, 1)
    for name, score in learnable.scores.items():
        score.data[np.setdiff1d(full[name], mask[name]).tolist()] = 0.0
    expected = {
        name: optimizer.state[score]["exp_avg"][mask[name].tolist()] for name, score in learnable.scores.items()
    }
    with torch.no_grad():
        before = learnable(x).logits
        shrink(model.network, model.layers, full, mask, optimizer)
        learnable.shrink(full, mask, optimizer)
        model.config.masks = mask.pack()
        assert torch.allclose(learnable(x).logits, before, atol=1e-4)
    for name, score in learnable.scores.items():
        assert torch.equal(optimizer.state[score]["exp_avg"], expected[name])
    learnable(x).logits.sum().backward()
    optimizer.step()


def test_the_l1_loss_is_the_mean_score_of_the_layers(any_base: BaseModel, task_data: TaskData) -> None:
    learnable = LearnableScores(whole(any_base, task_data), 0.05, 3.0)
    assert learnable.penalty().item() == pytest.approx(3.0)
    first = next(iter(learnable.scores))
    learnable.scores[first].data.fill_(-2.0)
    assert learnable.penalty().item() == pytest.approx(3.0 * (1 + 1 / len(any_base.sizes)))


def test_ahnp_removes_what_falls_below_the_threshold_and_never_more_than_the_ratio(
    vit_base: BaseModel, task_data: TaskData
) -> None:
    from hf_metaprune.methods.learned_scores import ScoreTraining

    options = job(vit_base, task_data, ratio=0.5, threshold=0.5)
    model = whole(vit_base, task_data)
    training = ScoreTraining(model, options, get_method("ahnp"))
    heads, nodes = "blocks.0.attn", "blocks.0.mlp"
    training.learnable.scores[heads].data.copy_(torch.tensor([0.1, 0.2, 0.3, 0.6]))
    training.learnable.scores[nodes].data[:3] = 0.4
    training.on_step(TrainingState(model, torch.optim.SGD(model.parameters(), 0.1), steps=10, step=1))
    assert training.mask[heads].tolist() == [2, 3]  # half of four stay, whatever the threshold
    assert training.mask[nodes].tolist() == list(range(3, 48))
    assert len(training.mask["blocks.1.attn"]) == 4
    assert not training.is_done
    assert model.network.get_submodule(heads).num_heads == 2
    assert training.learnable.finished_layers == {heads}
    assert training.score_history.last()[heads].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.6])


def test_ahnp_scores_tell_when_a_unit_went_and_stop_with_its_layer(vit_base: BaseModel, task_data: TaskData) -> None:
    from hf_metaprune.methods.learned_scores import ScoreTraining

    method = get_method("ahnp")
    training = ScoreTraining(
        whole(vit_base, task_data), job(vit_base, task_data, ratio=0.5, threshold=0.5, score_l1=1.0), method
    )
    heads, steps = "blocks.0.attn", ([0.45, 0.9, 0.9, 0.9], [0.49, 0.51, 0.9], [0.001, 0.002])
    pull = training.learnable.penalty()
    for step, values in enumerate(steps, 1):
        training.learnable.scores[heads].data.copy_(torch.tensor(values))
        training.on_step(
            TrainingState(
                training.learnable.model, torch.optim.SGD(training.learnable.parameters, 0.1), steps=10, step=step
            )
        )
    scores = method.scores(training)[heads]
    assert training.mask[heads].tolist() == [2, 3]
    assert scores.tolist() == pytest.approx([1.45 / 3, 2.39 / 3, 2.41 / 3, 2.8 / 3])  # what falls later says nothing
    training.learnable.scores[heads].data.fill_(1e6)
    assert training.learnable.penalty() < pull  # nor is it pulled down any more


def test_a_threshold_that_few_fall_below_is_said(
    vit_base: BaseModel, task_data: TaskData, caplog: pytest.LogCaptureFixture
) -> None:
    get_method("ahnp").prune(job(vit_base, task_data, steps=4, score_l1=0.0))
    (message,) = [record.getMessage() for record in caplog.records]
    assert re.search(r"ahnp: (\d+) of the \1 units to prune still score more than threshold=0.1", message)
    assert "raise score_l1=0 or score_share=0.5" in message
    caplog.clear()
    get_method("ahnp").prune(job(vit_base, task_data, steps=4, score_l1=0.0, threshold=1e5))
    assert not caplog.records


@pytest.mark.slow
def test_ahnp_gets_cheaper_as_it_goes(vit_base: BaseModel, task_data: TaskData) -> None:
    dense = fine_tune(
        whole(vit_base, task_data), task_data.train, TrainingOptions(steps=30, batch_size=24, eval_steps=()), device=CPU
    )
    model, record = get_method("ahnp").prune(job(vit_base, task_data, steps=30, score_l1=50.0, score_share=1.0))
    assert record.images == dense.images
    assert record.flops < 0.8 * dense.flops
    assert len(record.losses) == 30
    assert model.mask().ratio == pytest.approx(0.7, abs=0.05)


def test_accuracy_while_scores_are_learnt_is_that_of_the_scaled_network(
    vit_base: BaseModel, task_data: TaskData
) -> None:
    model = whole(vit_base, task_data)
    learnable = LearnableScores(model, 0.0, 0.0)
    for score in learnable.parameters:
        score.data.fill_(3.0)
    options = TrainingOptions(steps=1, lr=0.0, batch_size=24, eval_steps=(0,))
    accuracy = fine_tune(
        model, task_data.train, options, evaluation=task_data.evaluation, device=CPU, learnable=learnable
    ).accuracy_at_step[0]
    learnable.fold()
    plain = fine_tune(model, task_data.train, options, evaluation=task_data.evaluation, device=CPU).accuracy_at_step[0]
    assert accuracy == plain


def test_options_of_scores_are_checked() -> None:
    for name, value in (("score_lr", -1.0), ("score_share", 1.5), ("threshold", -0.1), ("score_l1", float("nan"))):
        with pytest.raises(OptionError, match=name):
            AhnpOptions(**{name: value})

"""The training loop, recalibration, and counting FLOPs."""

from __future__ import annotations

import itertools
import os
import socket
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from hf_metaprune import MetaPruner
from hf_metaprune.config import TrainingOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import DataError, OptionError
from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.sizing.cost_model import count_flops
from hf_metaprune.training import loop as training
from hf_metaprune.training import statistics
from hf_metaprune.training.feature_teacher import FeatureTeacher
from hf_metaprune.training.forward import accuracy, predict_logits
from hf_metaprune.training.hardware import pick_device
from hf_metaprune.training.loop import TrainingState, batch_rows, fine_tune, lr_factor, make_optimizer
from hf_metaprune.training.statistics import recalibrate
from tests import forked
from tests.conftest import first_by_default

CPU = torch.device("cpu")


@pytest.fixture
def model(base: BaseModel, task_data: TaskData) -> MetaPrunedForImageClassification:
    torch.manual_seed(0)
    return base.slice(base.config(Mask.random(base.sizes, 0.5, 0), task_data.task.labels))


def options(**changes: object) -> TrainingOptions:
    return TrainingOptions(**{"steps": 12, "batch_size": 24, "lr": 0.02, "eval_steps": (0, 5), **changes}).closed()


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_it_learns(model: MetaPrunedForImageClassification, task_data: TaskData) -> None:
    result = fine_tune(
        model, task_data.train, options(steps=60, eval_steps=(0,)), evaluation=task_data.evaluation, device=CPU
    )
    assert list(result.accuracy_at_step) == [0, 60]
    assert result.accuracy_at_step[60] > max(0.5, result.accuracy_at_step[0])
    assert result.accuracy_at_step[60] == accuracy(model, task_data.evaluation, CPU)
    assert len(result.losses) == 60
    assert np.mean(result.losses[-5:]) < 0.7 * np.mean(result.losses[:5])
    assert result.images == 60 * 24
    assert not model.training


@pytest.mark.parametrize(
    "changes",
    first_by_default(
        {"mixup": 0.4, "label_smoothing": 0.1},
        {},
        {"flip": False, "shift": 0.0},
        {"ema": 0.8, "start_share": 0.5},
        {"clip_norm": 1.0, "weight_decay": 1e-3},
    ),
)
def test_the_same_seed_gives_the_same_weights(base: BaseModel, task_data: TaskData, changes: dict) -> None:
    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(0)
        model = base.slice(base.config(Mask.random(base.sizes, 0.5, 0), task_data.task.labels))
        fine_tune(model, task_data.train, options(**changes), device=CPU, seed=seed)
        return weights(model)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.slow
def test_each_option_changes_what_is_learnt(base: BaseModel, task_data: TaskData) -> None:
    changes = [
        {},
        {"ema": 0.8},
        {"start_share": 0.5},
        {"mixup": 0.4},
        {"label_smoothing": 0.1},
        {"clip_norm": 0.1},
        {"weight_decay": 0.1},
    ]
    changes += [{"warmup_steps": 4}, {"schedule": "constant"}, {"flip": False}, {"shift": 0.0}, {"momentum": 0.0}]
    states = []
    for change in changes:
        torch.manual_seed(0)
        model = base.slice(base.config(Mask.random(base.sizes, 0.5, 0), task_data.task.labels))
        fine_tune(model, task_data.train, options(**change), device=CPU)
        states.append(weights(model))
    for (i, a), (j, b) in itertools.combinations(enumerate(states), 2):
        assert not torch.equal(a, b), (changes[i], changes[j])


@pytest.mark.slow
def test_a_moving_average_is_what_is_evaluated_and_kept(
    model: MetaPrunedForImageClassification, task_data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits, not accuracies: a buffer averaged along with the weights once spoilt what was evaluated."""
    outputs: list[torch.Tensor] = []
    true_accuracy = training.accuracy

    def watched(model: MetaPrunedForImageClassification, *rest: object) -> float:
        outputs.append(predict_logits(model, task_data.evaluation, CPU))
        return true_accuracy(model, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "accuracy", watched)
    fine_tune(model, task_data.train, options(ema=0.95, steps=30), evaluation=task_data.evaluation, device=CPU)
    assert torch.allclose(outputs[-1], predict_logits(model, task_data.evaluation, CPU), atol=1e-5)


def test_batch_norm_statistics_are_those_of_the_last_weights(
    model: MetaPrunedForImageClassification, task_data: TaskData
) -> None:
    """The moving averages of a short training lag far behind its weights, and know nothing of averaged weights."""
    plan = options(ema=0.95, steps=20, lr=0.02)
    plain = fine_tune(deepcopy(model), task_data.train, plan, device=CPU)
    result = fine_tune(model, task_data.train, plan, evaluation=task_data.evaluation, device=CPU, statistics="new")
    assert result.accuracy_at_step[20] == training.accuracy(model, task_data.evaluation, CPU)
    images = len(task_data.train)
    assert result.flops - plain.flops == images * count_flops(model, task_data.train.images[:1])[0]
    buffers = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    assert recalibrate(model, task_data.train, CPU) == images
    assert buffers and all(torch.allclose(value, model.get_buffer(name)) for name, value in buffers.items())


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_weights_from_before_the_training_have_their_share(
    model: MetaPrunedForImageClassification, task_data: TaskData, share: float
) -> None:
    plain, averaged, before = deepcopy(model), deepcopy(model), weights(model)
    fine_tune(plain, task_data.train, options(lr=0.02), device=CPU)
    fine_tune(averaged, task_data.train, options(lr=0.02, start_share=share), device=CPU)
    after = weights(plain)
    assert (after - before).abs().max() > 1e-3
    assert torch.allclose(weights(averaged), share * before + (1 - share) * after, atol=1e-6)


def test_a_decoder_is_averaged_like_the_network(base: BaseModel, task_data: TaskData) -> None:
    def run(share: float) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        model = base.slice(base.config(Mask.random(base.sizes, 0.5, 0), task_data.task.labels))
        whole = base.whole(task_data.task.labels)
        decoder = torch.nn.Linear(model.classifier.in_features, whole.classifier.in_features)
        before = weights(decoder)
        teacher = FeatureTeacher(whole, task_data.train, decoder, lambda model: None)
        fine_tune(model, task_data.train, options(start_share=share), device=CPU, teacher=teacher)
        return before, weights(decoder)

    (before, after), (_, averaged) = run(0.0), run(0.5)
    assert (after - before).abs().max() > 1e-3
    assert torch.allclose(averaged, (before + after) / 2, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("averages", [{}, {"ema": 0.95}, {"start_share": 0.5}, {"ema": 0.95, "start_share": 0.5}])
def test_an_accuracy_on_the_way_is_that_of_a_training_which_ends_there(
    model: MetaPrunedForImageClassification, task_data: TaskData, averages: dict[str, float]
) -> None:
    def run(steps: int, eval_steps: tuple[int, ...]) -> tuple[dict[int, float], torch.Tensor]:
        plan = options(steps=steps, eval_steps=eval_steps, lr=0.02, schedule="constant", **averages)
        one, evaluation = deepcopy(model), task_data.evaluation
        result = fine_tune(one, task_data.train, plan, evaluation=evaluation, device=CPU, statistics="new")
        return result.accuracy_at_step, weights(one)

    (short, _), (long, watched), (_, alone) = run(6, ()), run(20, (6,)), run(20, ())
    assert long[6] == short[6]
    assert torch.equal(watched, alone)  # and looking changes nothing


def test_few_images_make_smaller_batches(model: MetaPrunedForImageClassification, task_data: TaskData) -> None:
    few = task_data.train.stratified(6, 0)
    result = fine_tune(model, few, options(steps=3), device=CPU)
    assert result.images == 18


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_batches_show_every_image_equally_often(n: int, size: int, seed: int) -> None:
    rows = batch_rows(n, size, seed)
    batches = [next(rows) for _ in range(3 * n)]
    assert {len(b) for b in batches} == {min(n, size)}
    counts = np.bincount(np.concatenate(batches), minlength=n)
    assert counts.max() - counts.min() <= 1 or size >= n


def test_the_schedule_warms_up_and_falls() -> None:
    plan = options(steps=20, warmup_steps=4)
    factors = [lr_factor(s, plan) for s in range(21)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert factors[20] == pytest.approx(0)
    assert lr_factor(15, options(schedule="constant")) == 1.0


def test_weights_decay_and_biases_and_norms_do_not(model: MetaPrunedForImageClassification) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, TrainingOptions(lr=0.1, momentum=0.0, weight_decay=0.5).closed())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, p in model.named_parameters():
        assert torch.allclose(p, before[name] * (0.95 if p.ndim > 1 else 1.0)), name


def test_mixup_mixes_labels_as_it_mixes_images(model: MetaPrunedForImageClassification, task_data: TaskData) -> None:
    """A network that says how much of each class is shown has the entropy of what it was shown as its loss."""
    run = training._Run(model, task_data.train, options(mixup=0.4), None, CPU, 0, [])
    inputs = []

    def network(x: torch.Tensor) -> SimpleNamespace:
        inputs.append(x)
        return SimpleNamespace(logits=x.clamp(min=1e-12).log())

    run.parallel = network  # type: ignore[assignment]
    loss = run._loss(torch.eye(9), torch.arange(9))
    assert (inputs[0] > 0).sum(1).float().mean() - 1 > 0  # at least one image is a mixture
    assert loss.item() == pytest.approx(torch.special.entr(inputs[0]).sum(1).mean().item(), abs=1e-5)


class Recorder:
    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: list[int] = []
        self.evaluations: list[tuple[int, float]] = []
        self.stop_at = stop_at

    def on_step(self, state: TrainingState) -> None:
        self.steps.append(state.step)
        state.stop = state.step == self.stop_at

    def on_eval(self, state: TrainingState) -> None:
        self.evaluations.append((state.step, state.accuracy))


def test_callbacks_are_told_and_can_stop(model: MetaPrunedForImageClassification, task_data: TaskData) -> None:
    recorder = Recorder(stop_at=7)
    result = fine_tune(
        model, task_data.train, options(), evaluation=task_data.evaluation, device=CPU, callbacks=[recorder]
    )
    assert recorder.steps == list(range(1, 8))
    assert [s for s, _ in recorder.evaluations] == [0, 5, 7]  # what is returned is measured
    assert dict(recorder.evaluations) == result.accuracy_at_step


def test_patience_ends_a_flat_run(model: MetaPrunedForImageClassification, task_data: TaskData) -> None:
    plan = options(lr=0.0, patience=2, eval_steps=tuple(range(0, 13, 2)))
    result = fine_tune(model, task_data.train, plan, evaluation=task_data.evaluation, device=CPU)
    assert list(result.accuracy_at_step) == [0, 2, 4]


def test_a_loss_that_is_not_finite_is_an_error(model: MetaPrunedForImageClassification, task_data: TaskData) -> None:
    with pytest.raises(DataError, match="smaller lr"):
        fine_tune(model, task_data.train, options(lr=100.0, steps=60, clip_norm=0.0, momentum=0.99), device=CPU)


def test_nothing_to_train_on_is_an_error(model: MetaPrunedForImageClassification, task_data: TaskData) -> None:
    with pytest.raises(DataError, match="no image"):
        fine_tune(model, task_data.train.subset([]), options(), device=CPU)


@pytest.mark.parametrize("batch", [256, 71])  # 72 images: 71 would leave a batch of one, counted as much as the 71
def test_recalibration_gives_the_statistics_of_the_images(
    model: MetaPrunedForImageClassification, task_data: TaskData, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "EVAL_BATCH", batch)
    norm = model.network.get_submodule("conv1.1")  # after the first convolution of the stem
    norm.running_mean.fill_(7.0)  # statistics of another task, of many batches
    norm.num_batches_tracked.fill_(40)
    recalibrate(model, task_data.train, CPU)
    conv = model.network.get_submodule("conv1.0")
    with torch.no_grad():
        x = torch.cat([conv(x) for x, _ in task_data.train.batches(100)])
    assert torch.allclose(norm.running_mean, x.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, x.var((0, 2, 3)), rtol=1e-4 if batch == 256 else 0.05)
    assert norm.momentum == 0.1
    assert not model.training


def test_recalibration_looks_at_no_more_images_than_it_takes(
    model: MetaPrunedForImageClassification, task_data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recalibrate(model, task_data.train, CPU) == len(task_data.train)
    monkeypatch.setattr(statistics, "STATISTICS_IMAGES", 30)
    assert recalibrate(model, task_data.train, CPU) == 30
    norm = model.network.get_submodule("conv1.1")
    assert norm.num_batches_tracked == 1
    monkeypatch.setattr(statistics.nn, "BatchNorm2d", torch.nn.LayerNorm)  # as of a transformer
    assert recalibrate(model, task_data.train, CPU) == 0


def test_recalibration_does_not_depend_on_the_order_of_classes(
    base: BaseModel, task_data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "EVAL_BATCH", 12)  # batches of one class each, were they not shuffled
    config = base.config(Mask.full(base.sizes), task_data.task.labels)
    model = base.slice(config)
    recalibrate(model, task_data.train, CPU)
    norm = model.network.get_submodule("conv1.1")
    with torch.no_grad():
        x = torch.cat([model.network.get_submodule("conv1.0")(x) for x, _ in task_data.train.batches(100)])
    assert torch.allclose(norm.running_var, x.var((0, 2, 3)), rtol=0.1)


def test_flops_of_a_known_network(base: BaseModel) -> None:
    """Counted by hand: the stem, two stages' first convolutions, and so on, from shapes alone."""
    model = base.slice(base.config(Mask.random(base.sizes, 0.5, 0), ["a", "b"]))
    macs, x = 0, torch.zeros(1, 3, 32, 32)
    handles = []

    def add(module: torch.nn.Module, _args: object, out: torch.Tensor) -> None:
        nonlocal macs
        if isinstance(module, torch.nn.Conv2d):
            macs += out.shape[2] * out.shape[3] * module.weight.numel()
        else:
            macs += module.weight.numel()

    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            handles.append(module.register_forward_hook(add))
    model.eval()(x)
    for handle in handles:
        handle.remove()
    forward, training = count_flops(model, x)
    assert forward == 2 * macs
    first = model.network.get_submodule("conv1.0")
    assert training == 3 * forward - 2 * 16 * 16 * first.weight.numel()  # no gradient by the image


def test_a_frozen_stem_stays_as_it_is_and_costs_less(
    model: MetaPrunedForImageClassification, task_data: TaskData
) -> None:
    stem = model.architecture.stem_names(model.network)
    before = {n: t.clone() for n, t in model.network.state_dict().items()}
    model.network.get_parameter("layer4.1.bn2.bias").requires_grad_(False)  # the caller's own wish
    options = TrainingOptions(steps=3, batch_size=16, freeze_stem=True, eval_steps=(0, 1))
    frozen = fine_tune(model, task_data.train, options, evaluation=task_data.evaluation, device=CPU)
    after = model.network.state_dict()
    in_stem = {n for n in after if n.startswith(tuple(f"{name}." for name in stem))}
    assert in_stem
    assert all(torch.equal(before[n], after[n]) for n in in_stem)
    assert not torch.equal(before["layer1.0.conv1.weight"], after["layer1.0.conv1.weight"])
    names = [n for n, p in model.network.named_parameters() if not p.requires_grad]
    assert names == ["layer4.1.bn2.bias"]  # the next training may move the stem
    plain = fine_tune(model, task_data.train, TrainingOptions(steps=3, batch_size=16, eval_steps=()), device=CPU)
    assert frozen.flops < 0.8 * plain.flops


def test_predictions_are_in_order_and_in_eval_mode(
    model: MetaPrunedForImageClassification, task_data: TaskData
) -> None:
    model.train()
    logits = predict_logits(model, task_data.evaluation, CPU)
    one = predict_logits(model, task_data.evaluation.subset([3]), CPU)
    assert logits.shape == (48, 6)
    assert torch.allclose(logits[3], one[0], atol=1e-5)


def test_devices() -> None:
    assert pick_device("cpu") == CPU
    assert pick_device(None).type in ("cpu", "cuda", "mps", "xpu")
    with pytest.raises(OptionError, match="cuda:77|cuda"):
        pick_device("cuda:77")
    with pytest.raises(OptionError, match="quantum"):
        pick_device("quantum")


def train_as(variables: dict[str, str], bank: Path, photos: Path, out: Path) -> None:
    """Train as one of several processes, with the variables that `torchrun` and `accelerate launch` set."""
    os.environ.update(variables)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    result = MetaPruner.from_hub(bank).adapt(str(photos), steps=4, batch_size=16, eval_steps=(0,))
    torch.save((result.model.state_dict(), result.report.losses), out / f"{accelerator.process_index}.pt")


@pytest.mark.slow
def test_two_processes_train_one_model(bank_folder: Path, photos: Path, tmp_path: Path) -> None:
    """Each takes its half of every batch, and both end with the same weights and statistics."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    both = []
    for rank in ("0", "1"):
        variables = world | {"RANK": rank, "LOCAL_RANK": rank, "ACCELERATE_USE_CPU": "1"}
        arguments = (variables, bank_folder, photos, tmp_path)
        both.append(forked.context().Process(target=train_as, args=arguments))
    for process in both:
        process.start()
    for process in both:
        process.join(300)
    assert [process.exitcode for process in both] == [0, 0]
    (first, losses), (second, others) = (torch.load(tmp_path / f"{i}.pt") for i in (0, 1))
    assert losses != others  # other images
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name

"""Closed-form classifiers: against the normal equations, leave-one-out by refitting, and on real features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from hf_metaprune.adapt.classifier import make_head, neighbor_rows
from hf_metaprune.bank.bank import Bank
from hf_metaprune.data.task import Task, TaskData
from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.training import ridge as heads
from hf_metaprune.training.forward import accuracy, extract_features
from hf_metaprune.training.ridge import ridge_head
from tests.conftest import needs_wordnet
from tests.tiny import make_mobile_base

CPU = torch.device("cpu")


def problem(n: int = 60, d: int = 8, classes: int = 3, spread: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(classes, d, generator=generator, dtype=torch.float64)
    y = torch.arange(n) % classes
    return centers[y] + spread * torch.randn(n, d, generator=generator, dtype=torch.float64), y


def refit(x: torch.Tensor, y: torch.Tensor, penalty: float, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ridge regression on one-hot classes by the normal equations; the intercept is not penalized."""
    target = F.one_hot(y, classes).double()
    xc = x - x.mean(0)
    w = torch.linalg.solve(
        xc.T @ xc + penalty * torch.eye(x.shape[1], dtype=torch.float64), xc.T @ (target - target.mean(0))
    )
    return w.T, target.mean(0) - x.mean(0) @ w


def test_it_solves_the_ridge_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = problem()
    monkeypatch.setattr(heads, "LAMBDAS", (0.5,))
    head = ridge_head(x, y, 3)
    unit = torch.linalg.svdvals(x - x.mean(0)).square().mean().item()
    w, b = refit(x, y, 0.5 * unit, 3)
    assert torch.allclose(head.weight, head.scale * w)
    assert torch.allclose(head.bias, head.scale * b)


def test_the_penalty_has_the_smallest_leave_one_out_error() -> None:
    x, y = problem(n=24)
    unit = torch.linalg.svdvals(x - x.mean(0)).square().mean().item()
    errors = {}
    for factor in heads.LAMBDAS:
        error = 0.0
        for i in range(len(x)):  # truly refit without each image; the penalty stays
            rest = torch.arange(len(x)) != i
            w, b = refit(x[rest], y[rest], factor * unit, 3)
            error += (F.one_hot(y[i], 3) - w @ x[i] - b).square().mean().item()
        errors[factor] = error
    assert ridge_head(x, y, 3).ridge_lambda == min(errors, key=errors.__getitem__)


def test_logits_are_calibrated() -> None:
    x, y = problem(n=300, spread=2.5)
    fresh = problem(n=300, spread=2.5)[0] + 0  # the same law
    head = ridge_head(x, y, 3)
    logits = fresh @ head.weight.T + head.bias
    loss = F.cross_entropy(logits, y)
    assert loss < F.cross_entropy(3 * logits, y)
    assert loss < F.cross_entropy(logits / 3, y)


def test_a_good_prior_is_taken_and_a_bad_one_is_not() -> None:
    x, y = problem(n=9, d=30, spread=1.2)
    many, labels = problem(n=3000, d=30, spread=1.2)
    truth = ridge_head(many, labels, 3).weight
    good = ridge_head(x, y, 3, truth)
    assert good.prior_scale > 0
    fresh = many[100:], labels[100:]
    plain = ridge_head(x, y, 3)
    hits = {
        n: (fresh[0] @ h.weight.T + h.bias).argmax(1).eq(fresh[1]).double().mean()
        for n, h in {"p": plain, "g": good}.items()
    }
    assert hits["g"] > hits["p"]
    assert ridge_head(x, y, 3, -truth).prior_scale == 0


def test_more_features_than_images_is_fine() -> None:
    x, y = problem(n=6, d=50)
    head = ridge_head(x, y, 3)
    assert torch.isfinite(head.weight).all()
    assert (x @ head.weight.T + head.bias).argmax(1).tolist() == y.tolist()


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (Task(("sweet_pepper", "x")), Task(("Sweet pepper", "y")), True),
        (Task(("seal", "x"), ("seal.n.09", None)), Task(("sea lion", "y"), ("seal.n.09", None)), True),
        (Task(("seal", "x")), Task(("sea", "y")), False),
    ],
)
def test_classes_are_matched_by_synset_or_by_label(a: Task, b: Task, same: bool) -> None:
    assert a.matches(b) == [[0] if same else [], []]


@pytest.mark.slow
@needs_wordnet
def test_ids_of_imagenet_and_of_wordnet_are_matched() -> None:
    ours, theirs = Task(("n01440764", "hound"), (None, "n02084071")), Task(("a", "b"), ("dog.n.01", "tench.n.01"))
    assert ours.matches(theirs) == [[1], [0]]
    assert theirs.matches(ours) == [[1], [0]]
    assert Task(("n02084071 some dog", "n01440764_fish")).matches(theirs) == [[0], [1]]


def test_rows_of_neighbors_are_centered_and_averaged(bank: Bank) -> None:
    entries = [e for e in bank if "cat" in e.labels]
    task = Task(("cat", "zebra", "violin"))
    model = bank.base.whole(task.labels)
    rows, biases, counts = neighbor_rows(task, entries, model)
    assert counts == [len(entries), 0, 0]
    expected = []
    for e in entries:
        weight = e.load_model().classifier.weight.double()
        expected.append((weight - weight.mean(0))[e.labels.index("cat")])
    assert torch.allclose(rows[0], torch.stack(expected).mean(0), atol=1e-6)
    assert not rows[1].any()
    assert not biases[1].any()


def test_rows_of_neighbors_are_for_the_features_that_both_have(task_data: TaskData, tmp_path: Path) -> None:
    base = BaseModel.load(make_mobile_base(tmp_path))
    others, size = base.sizes, base.sizes["conv_head"]
    labels = ("cat", "dog")

    def part(features: list[int]) -> MetaPrunedForImageClassification:
        mask = Mask({name: range(n) for name, n in others.items()} | {"conv_head": features}, others)
        return base.slice(base.config(mask, labels))

    models = [part([0, 2, 3]), part([2, size - 1])]
    for model, value in zip(models, (1.0, 5.0), strict=True):
        torch.nn.init.constant_(model.classifier.weight[0], value)
        torch.nn.init.constant_(model.classifier.weight[1], -value)
    bank = Bank.create(tmp_path / "bank", base, defaults={"ratio": 0.9})
    entries = [bank.add(model, f"entry-{i}") for i, model in enumerate(models)]
    rows, _, _ = neighbor_rows(Task(labels), entries, part([0, 1, 2, size - 1]))
    assert rows[0].tolist() == [1.0, 0.0, 3.0, 5.0]


@pytest.mark.parametrize("kind", ["auto", "ridge", "stitched", "random"])
def test_heads_on_a_real_model(bank: Bank, task_data: TaskData, kind: str) -> None:
    target = task_data.select((0, 1, 2))
    base = bank.base
    torch.manual_seed(0)
    model = base.slice(base.config(Mask.full(base.sizes), target.task.labels)).eval()
    entries = [e for e in bank if e.labels == ("cat", "dog", "truck")]
    description = make_head(kind, model, target.train, target.task, entries, CPU)
    assert description.startswith(kind)
    hits = accuracy(model, target.evaluation, CPU)
    if kind in ("auto", "ridge"):
        assert hits > 0.6
    if kind == "stitched":
        rows, biases, _ = neighbor_rows(target.task, entries, model)
        assert torch.allclose(model.classifier.weight.double(), rows, atol=1e-6)
        assert torch.allclose(model.classifier.bias.double(), biases, atol=1e-6)


def test_a_neighbor_who_knows_the_classes_is_heard(bank: Bank, task_data: TaskData) -> None:
    """On its own sub-network and one image a class, its rows are a better guide than so few images."""
    entry = next(e for e in bank if e.labels == ("cat", "dog", "truck"))
    few = task_data.select((0, 1, 2), per_class=1)
    model = entry.load_model()
    assert ", prior 0," not in make_head("auto", model, few.train, few.task, [entry], CPU)
    weight = model.classifier.weight.clone()
    make_head("ridge", model, few.train, few.task, [entry], CPU)
    assert not torch.allclose(weight, model.classifier.weight, atol=1e-3)


def test_stitched_heads_take_ridge_rows_for_classes_nobody_knows(bank: Bank, task_data: TaskData) -> None:
    target = task_data.select((0, 3, 4))
    base = bank.base
    model = base.slice(base.config(Mask.full(base.sizes), target.task.labels)).eval()
    entries = [e for e in bank if "cat" in e.labels and "violin" not in e.labels and "daisy" not in e.labels]
    assert "rows of 1 classes" in make_head("stitched", model, target.train, target.task, entries, CPU)
    assert model.classifier.weight.any(1).all()


def test_features_are_what_the_classifier_sees(bank: Bank, task_data: TaskData) -> None:
    model = next(iter(bank)).load_model()
    features = extract_features(model, task_data.evaluation, CPU)
    x = next(task_data.evaluation.batches(100))[0]
    with torch.no_grad():
        assert torch.allclose(model.classifier(features.float()), model(x).logits, atol=1e-4)


def test_where_all_images_are_told_apart_the_classifier_still_doubts() -> None:
    """Else its logits are in the hundreds, and the first image that is wrong undoes the training."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(40) % 4
    features = 10 * torch.eye(12, dtype=torch.float64)[targets] + torch.randn(40, 12, generator=generator).double() / 10
    head = ridge_head(features, targets, 4)
    sure = (features @ head.weight.T + head.bias).softmax(1)[range(40), targets]
    assert 0.8 < sure.min() <= sure.mean() < 0.99

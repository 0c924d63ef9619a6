"""Votes on classes: what known means do to a classifier, who may tell them, and how they go from model to bank."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from hf_metaprune import Bank, MetaPruner, load_result
from hf_metaprune.adapt.class_votes import MAX_COUNT, vote_on_classes
from hf_metaprune.bank.bank import Bank as AnyBank
from hf_metaprune.bank.entry import Entry
from hf_metaprune.bank.factory import add_class_means
from hf_metaprune.bank.trunks import teach_bank
from hf_metaprune.bank.validation import validate_bank
from hf_metaprune.config import TrunkOptions
from hf_metaprune.data.images import ImageSet
from hf_metaprune.data.task import Task, TaskData
from hf_metaprune.errors import FormatError
from hf_metaprune.models.class_means import ClassMeans, count_features, from_text, to_text
from hf_metaprune.training import ridge
from hf_metaprune.training.forward import extract_features
from hf_metaprune.training.record import RunRecord
from hf_metaprune.training.ridge import KnownClasses, ridge_head
from tests.adapt.test_classifier import problem

CPU = torch.device("cpu")


def known_from(x: torch.Tensor, y: torch.Tensor, classes: list[int]) -> KnownClasses:
    return KnownClasses(torch.tensor(classes), torch.stack([x[y == i].mean(0) for i in classes]))


def refit(
    x: torch.Tensor, target: torch.Tensor, weights: torch.Tensor, penalty: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted ridge regression by the normal equations."""
    share = weights / weights.sum()
    xc, yc = x - share @ x, target - share @ target
    w = torch.linalg.solve(
        xc.T @ (weights[:, None] * xc) + penalty * torch.eye(x.shape[1]).double(), xc.T @ (weights[:, None] * yc)
    )
    return w.T, share @ target - share @ x @ w


def test_known_means_are_images_of_equal_features(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = problem(n=24)
    known = known_from(*problem(n=3000), [0, 2])
    rows, labels = torch.cat([x, known.means]), torch.cat([y, known.classes])
    target = F.one_hot(labels, 3).double()
    counts = torch.cat([torch.ones(24), torch.full((2,), 25.0)]).double()
    per_class = target.T @ counts
    weights = counts * (per_class.mean() / per_class[labels])  # each class counts the same
    share = weights / weights.sum()
    unit = torch.linalg.svdvals(weights.sqrt()[:, None] * (rows - share @ rows)).square().mean().item()
    monkeypatch.setattr(ridge, "VIRTUAL_IMAGES", (25,))
    errors = {}
    for factor in ridge.LAMBDAS:
        left_out = [torch.arange(26) != i for i in range(24)]  # truly refit without each image; the others stay
        refits = [refit(rows[rest], target[rest], weights[rest], factor * unit) for rest in left_out]
        errors[factor] = sum((target[i] - w @ x[i] - b).square().mean().item() for i, (w, b) in enumerate(refits)) / 24
    head = ridge_head(x, y, 3, known=known)
    assert head.virtual_images == 25
    assert head.ridge_lambda == min(errors, key=errors.__getitem__)
    assert head.error == pytest.approx(min(errors.values()))
    w, b = refit(rows, target, weights, head.ridge_lambda * unit)
    assert torch.allclose(head.weight, head.scale * w) and torch.allclose(head.bias, head.scale * b)


def test_means_that_help_are_taken_and_others_are_not() -> None:
    x, y = problem(n=9, d=30, spread=1.5)
    many, labels = problem(n=3000, d=30, spread=1.5)
    fresh, answers = many[9:], labels[9:]

    def accuracy(known: KnownClasses | None) -> float:
        head = ridge_head(x, y, 3, known=known)
        return (fresh @ head.weight.T + head.bias).argmax(1).eq(answers).double().mean().item()

    known = known_from(many, labels, [0, 1, 2])
    assert accuracy(known) > accuracy(None) + 0.05
    wrong = replace(known, means=known.means[[1, 2, 0]])
    assert ridge_head(x, y, 3, known=wrong).virtual_images == 0
    assert accuracy(wrong) == accuracy(None)


@given(st.integers(1, 40), st.integers(1, 6), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_packing_loses_half_a_step(features: int, classes: int, size: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    means = ClassMeans(rng.normal(0, size, (classes, features)), rng.integers(0, 2**40, classes))
    copy = ClassMeans.unpack(from_text(to_text(means.pack()), classes), classes)
    step = np.abs(means.means).max(1, keepdims=True) / 127
    assert (np.abs(copy.means - means.means) <= 0.57 * step + 127 * 6e-8).all()  # float16 scales round, too
    assert copy.counts.tolist() == np.minimum(means.counts, 2**32 - 1).tolist()


@pytest.mark.parametrize("packed", [b"", b"x" * 12, b"x" * 13, bytes(6 + 65_537)])
def test_means_of_another_length_are_refused(packed: bytes) -> None:
    with pytest.raises(FormatError, match="do not fit"):
        count_features(packed, 1 if len(packed) > 20 else 2)
    for text in ("?", to_text(packed)):
        with pytest.raises(FormatError):
            from_text(text, 1 if len(packed) > 20 else 2)


def test_scales_are_finite() -> None:
    packed = bytearray(ClassMeans(np.ones((1, 3)), np.array([1])).pack())
    packed[4:6] = b"\x00\x7e"
    with pytest.raises(FormatError, match="not finite"):
        ClassMeans.unpack(bytes(packed), 1)


def voter(
    bank: AnyBank, i: int, labels: tuple[str, ...], means: list[list[float]], count: int, owner: str = ""
) -> Entry:
    entry = next(iter(bank))
    packed = ClassMeans(np.array(means), np.full(len(labels), count)).pack()
    repo = {"repo_id": f"{owner}/m{i}", "revision": "0" * 40} if owner else {}
    return replace(entry, id=f"e{i}", task=Task(labels), class_means=packed, sketch=None, **repo)


def test_a_mean_is_that_of_its_voices(bank: Bank) -> None:
    entries = [
        voter(bank, 0, ("cat", "dog"), [[127, 0], [0, 127]], 50, "a"),
        voter(bank, 1, ("Cat", "bee"), [[0, 127], [127, 127]], 10**6, "b"),  # counts as one of 100 images
        voter(bank, 2, ("ant", "owl"), [[1, 1], [1, 1]], 5, "a"),
        voter(bank, 3, ("dog", "owl"), [[1, 1, 1], [1, 1, 1]], 5, "a"),
        voter(bank, 4, ("dog", "owl"), [[9, 9], [1, 1]], 0, "a"),
    ]
    record = RunRecord()
    votes = vote_on_classes(entries, Task(("dog", "cat", "eel")), 2, record)
    assert votes is not None
    assert [entry.id for entry in votes.voters] == ["e0", "e1", "e4"]
    assert votes.known.classes.tolist() == [0, 1]
    expected = np.array([[0, 127], [127 * 50 / (50 + MAX_COUNT), 127 * MAX_COUNT / (50 + MAX_COUNT)]])
    assert votes.known.means.numpy() == pytest.approx(expected, rel=1e-3)
    assert record.notes == ["1 entry did not vote on classes: their means are not of this base"]
    assert vote_on_classes(entries, Task(("eel", "fox")), 2, RunRecord()) is None


def test_all_entries_of_an_owner_have_one_voice(bank: Bank) -> None:
    entries = [voter(bank, i, ("cat", "dog"), [[127, 0], [127, 0]], 10**9, "one") for i in range(9)]
    entries += [voter(bank, 10, ("cat", "owl"), [[0, 127], [9, 9]], 100, "other")]
    entries += [voter(bank, 20 + i, ("dog", "owl"), [[0, 127], [9, 9]], 100, f"o{i}") for i in range(9)]
    votes = vote_on_classes(entries, Task(("cat", "dog")), 2, RunRecord())
    assert votes is not None
    assert votes.known.means.numpy() == pytest.approx(np.array([[63.5, 63.5], [12.7, 114.3]]), rel=1e-3)


def test_many_entries_cost_little(bank: Bank) -> None:
    """A name of the task is looked up, whatever the number of entries."""
    task, asked = Task(tuple(f"class {i}" for i in range(500))), []
    entries = [voter(bank, i, (f"class {i}", "owl"), [[1, 1], [1, 1]], 5) for i in range(50)]
    names = Task._names

    def counted(self: Task, i: int) -> list[tuple[str, str]]:
        asked.append(i)
        return names(self, i)

    with mock.patch.object(Task, "_names", counted):
        votes = vote_on_classes(entries, task, 2, RunRecord())
    assert votes is not None and len(votes.known.classes) == 50
    assert len(asked) == 500 + 2 * 50


def test_models_of_too_many_classes_carry_no_means() -> None:
    assert ClassMeans(np.ones((140, 2048)), np.ones(140)).pack() is not None
    many = ClassMeans(np.ones((200, 2048)), np.ones(200)).pack()
    assert many is None and to_text(many) is None
    with pytest.raises(FormatError, match="do not fit"):
        count_features(bytes(200 * 2054), 200)


OPTIONS = TrunkOptions(ratios=(0.5, 0.9), steps=4, batch_size=8, lr=0.01, precision="fp32")


def test_entries_tell_what_classes_are_like(own_bank: Bank, task_data: TaskData, tmp_path: Any) -> None:
    entries = list(own_bank)
    features = extract_features(own_bank.base.whole(task_data.task.labels), task_data.train, CPU)
    for entry in entries:  # as they were built
        assert entry.class_means is not None
        own = ClassMeans.unpack(entry.class_means, len(entry.labels))
        numbers = [task_data.task.labels.index(label) for label in entry.labels]
        rows = [task_data.train.targets == number for number in numbers]
        assert own.counts.tolist() == [int(chosen.sum()) for chosen in rows]
        true = torch.stack([features[chosen].mean(0) for chosen in rows]).numpy()
        assert own.means == pytest.approx(true, abs=np.abs(true).max() / 127)
    teach_bank(own_bank, task_data.train, OPTIONS, device=CPU)
    bank = Bank.open(own_bank.root)
    pruner, task = MetaPruner(bank), task_data.select((0, 1, 2))
    plan = pruner.plan(task, ratio=0.5, steps=0)
    assert plan.voters.class_votes is not None and plan.teacher is not None
    result = pruner.make(plan)
    n_known, n_voters = len(plan.voters.class_votes.known.classes), len(plan.voters.class_votes.voters)
    assert f"{n_voters} entries knew {n_known} of 3 classes" in result.report.head
    rows = torch.arange(len(task.train)).repeat(9)
    rich = replace(
        plan.inputs, images=ImageSet(task.train.images[rows], task.train.targets[rows], task.train.preprocessing)
    )
    assert pruner._class_votes(rich, plan.voters, RunRecord()) is None
    without = pruner.adapt(task, ratio=0.5, steps=0, class_votes=False)
    assert "knew" not in without.report.head and without.report.strategy == "trunk"
    # what the model learned votes for the next user
    folder = result.save_pretrained(tmp_path / "model")
    loaded = load_result(folder)
    assert loaded.model.config.class_means == to_text(plan.teacher.class_means.pack())
    entry = bank.add(loaded.model, "mine")
    assert entry.class_means == plan.teacher.class_means.pack()
    assert Bank.open(bank.root)["mine"].class_means == entry.class_means
    assert validate_bank(Bank.open(bank.root)) == []


def test_means_that_differ_from_the_index_are_found(own_bank: Bank, task_data: TaskData) -> None:
    entry = next(iter(own_bank))
    model = entry.load_model()
    model.config.class_means = to_text(ClassMeans(np.ones((len(entry.labels), 8)), np.ones(len(entry.labels))).pack())
    with pytest.raises(FormatError, match="class means"):
        entry.check_config(model.config)


def test_means_are_added_where_the_data_has_all_classes(own_bank: Bank, task_data: TaskData) -> None:
    before = {entry.id: entry.class_means for entry in own_bank}
    own_bank.update_index({entry.id: replace(entry, class_means=None) for entry in own_bank})
    first = next(iter(own_bank))
    numbers = [task_data.task.labels.index(label) for label in first.labels]
    added = add_class_means(own_bank, task_data.select(numbers), device=CPU)
    assert first.id in added and len(added) < len(own_bank)
    assert add_class_means(own_bank, task_data, device=CPU) == sorted(before.keys() - set(added))
    assert {entry.id: entry.class_means for entry in Bank.open(own_bank.root)} == before

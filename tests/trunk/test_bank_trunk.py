"""The trunk of a bank: taught once, found before use, published, and gone on with after a kill."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from hf_metaprune import Bank, MetaPruner, load_result
from hf_metaprune.bank import entry_checks, trunks
from hf_metaprune.bank.factory import copy_subset
from hf_metaprune.bank.trunks import teach_bank
from hf_metaprune.bank.validation import validate_bank
from hf_metaprune.config import TrunkOptions
from hf_metaprune.data.images import ImageSet
from hf_metaprune.data.preprocessing import Preprocessing
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import BankError, DataError, FormatError, LockedError, MetaPruneError, OptionError
from hf_metaprune.training.forward import extract_features, predict_logits
from hf_metaprune.training.ridge import ridge_head
from hf_metaprune.trunk import Teaching, Trunk
from hf_metaprune.trunk.checkpoint import load_checkpoint, save_checkpoint

OPTIONS = TrunkOptions(ratios=(0.5, 0.7, 0.9), steps=4, batch_size=8, lr=0.01, precision="fp32")
CPU = torch.device("cpu")


def teach(bank: Bank, data: TaskData, options: TrunkOptions = OPTIONS) -> Trunk:
    return teach_bank(bank, data.train, options, device=CPU)


def check_within(factor: float, trunk: Trunk, place: str) -> None:
    """`check_trunk` with another limit."""
    with mock.patch.object(entry_checks, "MAX_MAGNITUDE_FACTOR", factor):
        entry_checks.check_trunk(trunk, place)


def same(one: Trunk, other: Trunk) -> bool:
    states = [(one.whole_state(ratio), other.whole_state(ratio)) for ratio in OPTIONS.ratios]
    return all(torch.equal(a[name], b[name]) for a, b in states for name in a)


def test_a_trunk_is_stored_in_its_bank(own_bank: Bank, task_data: TaskData, tmp_path: Path) -> None:
    assert own_bank.trunk is None
    trunk = teach(own_bank, task_data)
    assert sorted(path.name for path in (own_bank.root / "trunk").iterdir()) == ["config.json", "model.safetensors"]
    assert not (own_bank.root / ".trunk").exists()
    bank = Bank.open(own_bank.root)
    assert bank.meta["format_version"] == 2
    assert len(bank) == len(own_bank) == 4
    assert bank.trunk is not None and same(bank.trunk, trunk)
    assert validate_bank(bank) == []
    copy = copy_subset(bank, tmp_path / "copy", [next(iter(bank)).id])
    assert copy.trunk is not None and same(copy.trunk, trunk)


def test_a_model_comes_from_the_trunk_unless_a_vote_is_asked_for(own_bank: Bank, task_data: TaskData) -> None:
    pruner, task = MetaPruner(own_bank), task_data.select((0, 1))

    def strategy(**options: Any) -> str:
        report = pruner.adapt(task, steps=1, batch_size=8, eval_steps=(0,), **options).report
        assert bool(report.neighbors) == (report.strategy in ("mvp", "smsp"))
        assert report.options["strategy"] == report.strategy
        return report.strategy

    assert strategy() == "mvp"
    teach(own_bank, task_data)
    pruner = MetaPruner(Bank.open(own_bank.root))
    assert strategy() == strategy(ratio=0.6) == strategy(max_params=30_000) == strategy(head="ridge") == "trunk"
    assert strategy(neighbors=2) == strategy(by="leep") == strategy(weights="trunk") == strategy(vote="sample") == "mvp"
    assert strategy(preset="paper") == strategy(prune_stem=True) == strategy(head="stitched") == "mvp"
    assert strategy(ratio=0.4) == "mvp"  # the trunk holds no network so large
    assert strategy(strategy="no-bank") == "no-bank"


def test_features_are_learned_and_the_classifier_is_computed_again(own_bank: Bank, task_data: TaskData) -> None:
    teach(own_bank, task_data)
    pruner, task = MetaPruner(own_bank), task_data.select((0, 1, 2))
    options: dict[str, Any] = {"ratio": 0.5, "batch_size": 8, "eval_steps": (0, 3)}
    plan = pruner.plan(task, **options)
    assert plan.teacher is not None and plan.training.loss == "features" and plan.options.head == "decoded"
    start = pruner.make(replace(plan, training=replace(plan.training, steps=0)))
    trained = pruner.make(replace(plan, training=replace(plan.training, steps=20)))
    assert trained.report.accuracy_at_step[0] == start.report.accuracy_at_step[0]
    losses = trained.report.losses
    assert len(losses) == 20
    assert sum(losses[-5:]) < sum(losses[:5])
    assert trained.report.training_flops > start.report.training_flops == 0
    name = trained.model.architecture.classifier_name(trained.model.network)
    assert not torch.equal(*(r.model.network.state_dict()[f"{name}.weight"] for r in (start, trained)))
    # the decoder is no part of the model
    assert {n for n, _ in start.model.named_parameters()} == {n for n, _ in trained.model.named_parameters()}
    assert all(p.requires_grad for p in trained.model.parameters())
    assert "the whole base, untrained" in trained.report.baselines


def test_a_decoded_classifier_is_that_of_decoded_features(own_bank: Bank, task_data: TaskData) -> None:
    teach(own_bank, task_data)
    pruner, task = MetaPruner(own_bank), task_data.select((0, 1, 2))
    plan = pruner.plan(task, ratio=0.5, steps=0)
    result = pruner.make(plan)
    assert result.report.head.startswith("decoded: ridge lambda")
    assert plan.teacher is not None and own_bank.trunk is not None
    features = own_bank.trunk.decoders[0.5](extract_features(result.model, task.train, CPU))
    expected = ridge_head(features, task.train.targets, 3, plan.teacher.head.weight)
    logits = predict_logits(result.model, task.train, CPU)
    assert torch.allclose(logits.double(), features @ expected.weight.T + expected.bias, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "mvp", "loss": "features"}, "loss='features' needs strategy='trunk'"),
        ({"strategy": "no-bank", "head": "decoded"}, "head='decoded' needs strategy='trunk'"),
        ({"strategy": "trunk", "head": "random"}, "head='random' needs loss='labels'"),
        ({"strategy": "trunk", "head": "stitched"}, "head='stitched' needs loss='labels'"),
    ],
)
def test_what_needs_a_decoder_is_said_before_any_work(
    own_bank: Bank, task_data: TaskData, options: dict[str, Any], message: str
) -> None:
    teach(own_bank, task_data)
    with pytest.raises(OptionError, match=message):
        MetaPruner(own_bank).adapt(task_data.select((0, 1)), **options)


def test_a_trunk_is_taught_once(own_bank: Bank, task_data: TaskData, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = teach(own_bank, task_data)
    monkeypatch.setattr(Teaching, "step", None)
    assert same(teach(own_bank, task_data), trunk)
    monkeypatch.undo()
    assert not same(teach(own_bank, task_data, replace(OPTIONS, lr=0.1)), trunk)


def teach_until_killed(root: Path, images: object) -> None:
    """Be a process that teaches, with a checkpoint after each step."""
    torch.set_num_threads(1)
    trunks.CHECKPOINT_SECONDS = 0.0
    step = Teaching.step

    def slow_step(teaching: Teaching) -> float:
        if teaching.step_number == 2:
            (root / "ready").touch()
            time.sleep(600)
        return step(teaching)

    Teaching.step = slow_step  # type: ignore[method-assign]
    teach_bank(Bank.open(root), images, OPTIONS, device=CPU)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_process_that_was_killed_is_gone_on_with(own_bank: Bank, task_data: TaskData, tmp_path: Path) -> None:
    shutil.copytree(own_bank.root, tmp_path / "other")
    expected = teach(Bank.open(tmp_path / "other"), task_data)
    process = multiprocessing.get_context("spawn").Process(
        target=teach_until_killed, args=(own_bank.root, task_data.train)
    )
    process.start()
    while not (own_bank.root / "ready").exists():
        assert process.is_alive()
        process.join(0.05)
    with pytest.raises(LockedError):
        teach(own_bank, task_data)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (own_bank.root / "ready").unlink()
    assert Bank.open(own_bank.root).trunk is None
    with pytest.raises(OptionError, match="other images, options or base"):
        teach(own_bank, task_data, replace(OPTIONS, lr=0.5))
    trunk = teach(own_bank, task_data)
    assert same(trunk, expected)


@pytest.mark.parametrize(("key", "value"), [("step", "-2"), ("step", "99999"), ("seconds", "nan"), ("seconds", "inf")])
def test_an_altered_checkpoint_is_refused(
    own_bank: Bank, task_data: TaskData, tmp_path: Path, key: str, value: str
) -> None:
    from safetensors.torch import load_file, save_file

    teaching, path = Teaching(own_bank.base, task_data.train, OPTIONS, CPU), tmp_path / "checkpoint.safetensors"
    save_checkpoint(teaching, path, "digest")
    assert load_checkpoint(teaching, path, "digest")
    metadata = {"digest": "digest", "step": "0", "seconds": "1.0"} | {key: value}
    save_file(load_file(path), path, metadata)
    with pytest.raises(FormatError, match=r"checkpoint.safetensors cannot be read: .* to begin anew"):
        load_checkpoint(teaching, path, "digest")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", ""])
def test_a_trunk_that_is_missing_is_found_before_use(own_bank: Bank, task_data: TaskData, name: str) -> None:
    teach(own_bank, task_data)
    path = own_bank.root / "trunk" / name
    path.unlink() if name else shutil.rmtree(path)
    bank = Bank.open(own_bank.root)
    with pytest.raises(FormatError, match="trunk"):
        bank.trunk  # noqa: B018
    (problem,) = validate_bank(bank)
    assert "the trunk cannot be used" in problem.what
    assert str(path) in problem.what
    teach(own_bank, task_data)
    assert validate_bank(Bank.open(own_bank.root)) == []


def test_weights_that_cannot_come_from_the_base_are_refused(own_bank: Bank, task_data: TaskData) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    teach(own_bank, task_data)
    path = own_bank.root / "trunk" / "model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["network.layer1.0.conv1.weight"].mul_(1000)
    save_file(tensors, path, metadata)
    with pytest.raises(FormatError, match=r"layer1\.0\.conv1\.weight is far out"):
        Bank.open(own_bank.root).trunk  # noqa: B018


@pytest.mark.parametrize("value", ["../trunk", "base", 5, None])
def test_a_trunk_has_one_place(own_bank: Bank, value: object) -> None:
    path = own_bank.root / "bank.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trunk": value}))
    with pytest.raises(FormatError, match="trunk must be"):
        Bank.open(own_bank.root)


def test_weights_that_ran_away_do_not_replace_a_trunk(
    own_bank: Bank, task_data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = teach(own_bank, task_data)
    monkeypatch.setattr(trunks, "check_trunk", lambda trunk, place: check_within(1.0001, trunk, place))
    with pytest.raises(MetaPruneError, match=r"is not stored, use a smaller lr|the loss is"):
        teach(own_bank, task_data, replace(OPTIONS, lr=0.2))
    kept = Bank.open(own_bank.root).trunk
    assert kept is not None
    assert same(kept, trunk)


def test_a_model_starts_from_the_trunk(own_bank: Bank, task_data: TaskData) -> None:
    trunk = teach(own_bank, task_data)
    task, start = task_data.select((0, 1, 2)), {"steps": 0, "strategy": "trunk", "statistics": "own"}
    result = MetaPruner(own_bank).adapt(task, ratio=0.7, **start)
    config = result.model.config
    assert config.mask() == trunk.mask(0.7)
    assert config.method == result.report.strategy == "trunk"
    expected = trunk.slice(config).network.state_dict()
    classifier = own_bank.base.family.classifier_name(own_bank.base.network)
    for name, tensor in result.model.network.state_dict().items():
        assert name.startswith(classifier) or torch.equal(tensor, expected[name]), name
    assert result.report.neighbors == []
    sweep = MetaPruner(own_bank).sweep(task, (0.5, 0.9), **start)
    assert [model.model.config.mask() for model in sweep] == [trunk.mask(0.5), trunk.mask(0.9)]


def test_units_that_no_neighbor_holds_start_with_the_trunks_weights(own_bank: Bank, task_data: TaskData) -> None:
    trunk = teach(own_bank, task_data)
    task = task_data.select((0, 1, 2))
    options = {"steps": 0, "weights": "trunk", "statistics": "own", "neighbors": 2, "by": "leep"}
    result = MetaPruner(own_bank).adapt(task, ratio=0.7, **options)
    expected = trunk.slice(result.model.config).network.state_dict()
    name = next(name for name in expected if name.endswith("conv2.weight"))
    assert torch.equal(result.model.network.state_dict()[name], expected[name])
    assert len(result.report.neighbors) == 2


def test_what_a_trunk_cannot_do_is_said_before_any_work(own_bank: Bank, task_data: TaskData) -> None:
    pruner, task = MetaPruner(own_bank), task_data.select((0, 1))
    with pytest.raises(BankError, match="has no trunk: make one with `hf-metaprune bank trunk`"):
        pruner.adapt(task, strategy="trunk")
    teach(own_bank, task_data)
    with pytest.raises(OptionError, match=r"holds sub-networks of ratio 0.5 and above"):
        pruner.adapt(task, strategy="trunk", ratio=0.4)
    with pytest.raises(OptionError, match="prune_stem=True is not for a trunk"):
        pruner.adapt(task, strategy="trunk", prune_stem=True)


def test_the_base_teaches_a_model_of_the_trunk_on_photos(own_bank: Bank, task_data: TaskData, tmp_path: Path) -> None:
    teach(own_bank, task_data)
    photos = task_data.train.subset(torch.nonzero(task_data.train.targets < 3)[:, 0])
    result = MetaPruner(own_bank).adapt(
        task_data.select((0, 1, 2), 2, 0), unlabeled=photos, strategy="trunk", ratio=0.5, steps=3, eval_steps=(0,)
    )
    report = result.report
    assert report.unlabeled_images == len(photos)
    assert 0 <= report.baselines["the whole base, untrained"][0] <= 1
    assert report.train_images == 6
    page = result.to_html()
    assert f"6 images and {len(photos)} photos without labels" in page
    assert "--unlabeled PHOTOS" in page
    assert f"{len(photos)} photos without labels" in report.to_markdown()
    folder = result.save_pretrained(tmp_path / "model")
    assert load_result(folder).report.unlabeled_images == len(photos)
    assert f"{len(photos)} photos without labels" in (folder / "README.md").read_text()


def test_photos_of_another_size_are_refused(own_bank: Bank, task_data: TaskData) -> None:
    photos = ImageSet(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([-1, -1]), Preprocessing((3, 8, 8)))
    with pytest.raises(DataError, match="the bank's base wants"):
        MetaPruner(own_bank).adapt(task_data.select((0, 1)), unlabeled=photos)

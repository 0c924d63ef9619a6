"""The main job, end to end, on the tiny bank."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.adapt.strategies import order_by_votes
from hf_metaprune.adapt.voters import Voters
from hf_metaprune.config import AdaptOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import (
    BankError,
    BaseMismatchError,
    DataError,
    FormatError,
    MetaPruneError,
    OptionError,
    StorageError,
    WordNetError,
)
from hf_metaprune.masks.mask import Mask, keep_count
from hf_metaprune.reporting.report import AdaptReport
from hf_metaprune.reporting.report_files import save_report
from hf_metaprune.result import AdaptResult, load_result
from hf_metaprune.similarity import Neighbor, get_similarity
from hf_metaprune.sizing.inputs import AdaptInputs
from hf_metaprune.training.record import RunRecord
from tests.conftest import first_by_default, needs_wordnet

CPU = torch.device("cpu")
FAST = {"steps": 6, "batch_size": 16, "eval_steps": (0, 3), "neighbors": 2}


@pytest.fixture
def target(task_data: TaskData) -> TaskData:
    return task_data.select((0, 2, 4))


def test_the_main_job(pruner: MetaPruner, target: TaskData) -> None:
    result = pruner.adapt(target, **(FAST | {"steps": 30, "lr": 0.02}))
    report = result.report
    assert report.accuracy > 0.6
    assert list(report.accuracy_at_step) == [0, 3, 30]
    assert report.accuracy == report.accuracy_at_step[30]
    assert report.accuracy_at_step[0] > 0.4  # useful before training
    assert np.array(report.confusion).sum() == report.test_images == 24
    assert report.accuracy_per_class.keys() == set(target.task.labels)
    assert len(report.neighbors) == 2
    assert report.neighbors[0]["score"] >= report.neighbors[1]["score"]
    assert report.ratio == 0.7
    sizes = pruner.bank.sizes
    assert {n: len(k) for n, k in result.model.mask().items()} == {n: keep_count(s, 0.7) for n, s in sizes.items()}
    assert report.params == sum(p.numel() for p in result.model.parameters())
    assert report.params < 0.4 * report.base_params
    assert report.macs < 0.7 * report.base_macs
    assert report.training_flops > 30 * 16 * report.macs * 2
    images, entries = report.train_images, len(pruner.bank)
    assert report.retrieval_flops == entries * images * 2 * report.macs  # all entries are as wide as the result
    assert report.preparation_flops == images * 2 * (report.base_macs + 2 * report.macs)
    assert set(report.seconds) >= {"find neighbors", "vote and average", "fine-tune"}
    assert report.options["steps"] == 30
    assert report.versions["torch"] == torch.__version__
    agreement = report.vote_agreement["layer4.1.conv1"]
    assert sum(agreement.values()) == keep_count(sizes["layer4.1.conv1"], 0.7)


@pytest.mark.slow
def test_all_kinds_of_data_come_to_a_model(pruner: MetaPruner, photos: Path) -> None:
    from_folder = pruner.adapt(photos, **FAST)
    import datasets

    data = datasets.load_dataset("imagefolder", data_dir=str(photos))
    from_dataset = pruner.adapt(data, **FAST)
    assert from_folder.report.accuracy == from_dataset.report.accuracy
    assert from_folder.report.labels == sorted(from_folder.report.labels)
    assert from_folder.report.source == "photos"


@pytest.mark.parametrize("strategy", first_by_default("mvp", "no-bank", "random"))
def test_the_same_seed_gives_the_same_model(pruner: MetaPruner, target: TaskData, strategy: str) -> None:
    def run(seed: int) -> AdaptResult:
        return pruner.adapt(target, **FAST, strategy=strategy, vote="sample", seed=seed)

    a, b, c = run(1), run(1), run(2)
    assert a.model.mask() == b.model.mask()
    for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True):
        assert torch.equal(x, y)
    if strategy != "no-bank":
        assert a.model.mask() != c.model.mask()


def test_one_neighbor_votes_for_itself_whole(pruner: MetaPruner, target: TaskData) -> None:
    start = {"steps": 0, "neighbors": 1, "statistics": "moving", "head": "random", "eval_steps": ()}
    result = pruner.adapt(target, **start)
    entry = pruner.bank[result.report.neighbors[0]["id"]]
    own, state = entry.load_model().network.state_dict(), result.model.network.state_dict()
    assert "bn1.running_mean" in state
    for name in own.keys() - {"fc.weight", "fc.bias"}:
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(state[name], own[name]), name


def test_weighted_votes_follow_the_scores(pruner: MetaPruner, target: TaskData) -> None:
    near, *far = pruner.bank
    neighbors = (Neighbor(near, 0.0), *(Neighbor(entry, -50.0) for entry in far))

    def winner(weighted: bool) -> Mask:
        options = AdaptOptions(vote="top", by="leep")
        inputs = AdaptInputs(pruner.bank.base, target.task, target.train, options, 0.7, CPU)
        weights = tuple(get_similarity("leep").weight(n.score) for n in neighbors) if weighted else None
        order = order_by_votes(inputs, Voters(neighbors, vote_weights=weights), RunRecord())
        return order.mask({name: keep_count(size, 0.7) for name, size in pruner.bank.sizes.items()})

    assert winner(weighted=True) == near.mask
    assert winner(weighted=False) != near.mask


@needs_wordnet
def test_neighbors_by_wordnet(pruner: MetaPruner, target: TaskData) -> None:
    report = pruner.adapt(target, **FAST, by="wordnet").report
    assert all(0 <= n["score"] <= 1 for n in report.neighbors)


def test_saving_loading_and_predicting(pruner: MetaPruner, target: TaskData, photos: Path, tmp_path: Path) -> None:
    result = pruner.adapt(target, **FAST)
    out = result.save_pretrained(tmp_path / "model")
    names = {p.name for p in out.iterdir()}
    assert names >= {"config.json", "model.safetensors", "preprocessor_config.json", "report.json", "report.md"}
    assert names >= {"accuracy.png", "confusion.png", "votes.png"}
    assert len({p.stat().st_mode for p in out.iterdir()}) == 1  # whoever may read one file may read all
    images = sorted(photos.rglob("*.jpg"))[:3]
    predictions, again = result.predict(images), load_result(out).predict(images)
    for f, g in zip(predictions, again, strict=True):
        assert f["probabilities"] == pytest.approx(g["probabilities"], abs=1e-5)
        assert f["score"] == max(f["probabilities"].values())
        assert sum(f["probabilities"].values()) == pytest.approx(1)
        assert f["label"] in target.task.labels
    same = result.predict(Image.open(images[0]))[0]
    assert same["probabilities"] == pytest.approx(predictions[0]["probabilities"], abs=1e-5)
    assert result.predict(np.asarray(Image.open(images[0])))[0]["label"] == predictions[0]["label"]
    assert load_result(out).report.to_dict() == result.report.to_dict()
    assert json.loads((out / "report.json").read_text())["accuracy"] == result.report.accuracy
    with pytest.raises(DataError, match="nosuch.jpg cannot be read"):
        result.predict("nosuch.jpg")
    with pytest.raises(StorageError, match="exists already"):
        result.save_pretrained(out)
    result.save_pretrained(out, overwrite=True, dtype="float16")
    assert load_result(out).model.mask() == result.model.mask()


@pytest.mark.slow
def test_the_way_without_a_bank_is_reported_beside(pruner: MetaPruner, target: TaskData) -> None:
    report = pruner.adapt(target, **FAST, compare=True).report
    alone = pruner.adapt(target, **FAST, strategy="no-bank").report
    assert report.baselines == {"without a bank": alone.accuracy_at_step}
    paper = pruner.adapt(target, **FAST, compare=True, preset="paper", head="random").report
    assert paper.baselines == report.baselines  # at its best, whatever it is compared with
    assert report.accuracy_at_step == pruner.adapt(target, **FAST).report.accuracy_at_step


@pytest.mark.slow
def test_all_images_may_be_learnt_from(pruner: MetaPruner, photos: Path, tmp_path: Path) -> None:
    result = pruner.adapt(photos, **FAST, evaluation_share=0)
    report = result.report
    assert (report.test_images, np.isnan(report.accuracy), report.accuracy_at_step) == (0, True, {})
    assert "not measured" in (result.save_pretrained(tmp_path / "m") / "report.md").read_text()
    assert load_result(tmp_path / "m").report.to_dict()["accuracy"] is None
    assert result.model.config.metrics is None
    with pytest.raises(OptionError, match="images to measure on"):
        pruner.adapt(photos, **FAST, evaluation_share=0, compare=True)


def test_a_report_says_how_sure_it_is() -> None:
    few = AdaptReport(accuracy=0.5, test_images=16)  # Wilson's interval of 8 in 16
    assert few.accuracy_interval == pytest.approx((0.28, 0.72), abs=0.005)
    assert AdaptReport(accuracy=1.0, test_images=10).accuracy_interval == pytest.approx((0.722, 1.0), abs=0.001)
    assert "50.0% (28% to 72% with 95% confidence) on 16 images" in few.to_markdown()


def test_markup_of_others_is_shown_as_it_is() -> None:
    wild = "<img src=x onerror=y> [a](http://b) www.c.de @me _x_ a|b $z$ pine_tree"
    tame = "\\<img src=x onerror=y\\> \\[a\\](http\\://b) www\\.c.de \\@me \\_x\\_ a\\|b \\$z\\$ pine_tree"
    page = AdaptReport(labels=[wild], accuracy=1.0, evaluated_on=wild, source=wild, notes=[wild]).to_markdown()
    assert page.count(tame) == 4
    assert "<img" not in page.replace("\\<img", "")


@pytest.fixture(scope="module")
def model_folder(bank_folder: Path, task_data: TaskData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its report, to copy."""
    result = MetaPruner.from_hub(bank_folder).adapt(task_data.select((0, 2, 4)), **(FAST | {"steps": 0}))
    return result.save_pretrained(tmp_path_factory.mktemp("saved") / "model")


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": 5},
        {"accuracy": "x"},
        {"labels": 7},
        {"baselines": {"other": [1]}},
        {"neighbors": [1]},
        {"seconds": {"all": "long"}},
        {"confusion": [[1, 2, 3]]},
        {"ratio": "high"},
        {"accuracy_per_class": {"a": "b"}},
    ],
)
def test_a_report_that_a_stranger_spoilt_is_left_out(model_folder: Path, tmp_path: Path, change: dict) -> None:
    out = shutil.copytree(model_folder, tmp_path / "model")
    report = json.loads((out / "report.json").read_text()) | change
    (out / "report.json").write_text(json.dumps(report))
    result = load_result(out)
    assert result.report == AdaptReport()
    assert "not measured" in repr(result)
    result.save_pretrained(tmp_path / "again")


@pytest.mark.slow
def test_half_precision_halves_the_file(pruner: MetaPruner, target: TaskData, tmp_path: Path) -> None:
    result = pruner.adapt(target, **FAST)
    full, half = (result.save_pretrained(tmp_path / d, dtype=d) for d in ("float32", "float16"))
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (full, half)]
    assert sizes[1] < 0.7 * sizes[0]


def test_data_that_was_read_for_another_base_is_refused(pruner: MetaPruner, target: TaskData) -> None:
    target.train = replace(target.train, preprocessing=replace(target.train.preprocessing, mean=(0.1, 0.2, 0.3)))
    with pytest.raises(DataError, match="was read for"):
        pruner.adapt(target, **FAST)


@pytest.mark.slow
def test_each_class_is_measured_on_its_own_images(pruner: MetaPruner, target: TaskData) -> None:
    few = [i for i, t in enumerate(target.evaluation.targets.tolist()) if t != 1 or i % 4 == 0]
    few = [i for i in few if target.evaluation.targets[i] != 2]
    target.evaluation = target.evaluation.subset(few)
    report = pruner.adapt(target, **FAST).report
    rows = dict(zip(report.labels, report.confusion, strict=True))
    first, second, third = report.labels
    assert 0 < sum(rows[second]) < sum(rows[first])
    assert report.accuracy_per_class[first] == rows[first][0] / sum(rows[first])
    assert report.accuracy_per_class[second] == rows[second][1] / sum(rows[second])
    assert np.isnan(report.accuracy_per_class[third])
    assert f"| {third} | no test image |" in report.to_markdown()


def test_skipped_images_are_in_the_report(pruner: MetaPruner, target: TaskData, tmp_path: Path) -> None:
    target.skipped_images.append("cat/7.jpg: broken")
    result = pruner.adapt(target, **FAST)
    assert result.report.skipped_images == ["cat/7.jpg: broken"]
    assert "1 image could not be read, and was left out." in result.report.to_markdown()


def test_an_empty_bank_is_refused(own_bank: Bank, target: TaskData) -> None:
    for name in list(own_bank.entries):
        own_bank.remove(name)
    with pytest.raises(BankError, match=r"no entry that could vote: build entries first"):
        MetaPruner(own_bank).adapt(target)
    assert MetaPruner(own_bank).adapt(target, **FAST, strategy="no-bank").report.accuracy >= 0


def test_a_bank_without_a_ratio_takes_that_of_its_entries_or_asks_for_one(own_bank: Bank, target: TaskData) -> None:
    own_bank.meta["defaults"] = {}
    assert own_bank.default_ratio == 0.7
    own_bank.use_entries({name: replace(entry, ratio=None) for name, entry in own_bank.entries.items()})
    with pytest.raises(BankError, match="pass ratio="):
        MetaPruner(own_bank).adapt(target)


def test_a_changed_base_is_refused_before_the_data_is_read(own_bank: Bank) -> None:
    path = own_bank.root / "base" / "model.safetensors"
    state = {n: t.clone() for n, t in load_file(path).items()}  # not mapped: the file is written over
    save_file(state | {"fc.bias": state["fc.bias"] + 1}, path)
    with pytest.raises(BaseMismatchError, match="not those of bank.json"):
        MetaPruner(Bank.open(own_bank.root)).adapt("nosuch-folder")


def test_a_damaged_neighbor_is_named(own_bank: Bank, target: TaskData) -> None:
    for entry in own_bank:
        path = entry.folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(FormatError, match="model.safetensors cannot be read"):
        MetaPruner(own_bank).adapt(target, **FAST)


@pytest.mark.parametrize("by", ["leep", pytest.param("wordnet", marks=needs_wordnet)])
def test_an_altered_neighbor_is_not_used(own_bank: Bank, target: TaskData, by: str) -> None:
    for entry in own_bank:
        path = entry.folder / "model.safetensors"
        state = {n: t.clone() for n, t in load_file(path).items()}
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        save_file(state | {"network.fc.bias": state["network.fc.bias"] + 1}, path, metadata=metadata)
    with pytest.raises(FormatError, match="was altered"):
        MetaPruner(own_bank).adapt(target, **FAST, by=by)


@needs_wordnet
def test_explicit_synsets_rank(pruner: MetaPruner, photos: Path) -> None:
    animals = ("cat.n.01", "dog.n.01", "n02084071", "cat.n.01", "dog.n.01", "dog.n.01")
    report = pruner.adapt(photos, **FAST, by="wordnet", synsets=animals).report
    assert {"cat", "dog"} <= set(report.neighbors[0]["labels"])
    with pytest.raises(WordNetError, match=r"no synset dgo\.n\.01"):
        pruner.adapt(photos, **FAST, by="wordnet", synsets=("dgo.n.01", *animals[1:]))
    with pytest.raises(DataError, match="2 synsets for 6 labels"):
        pruner.adapt(photos, **FAST, synsets=("cat.n.01", "dog.n.01"))


def test_a_loaded_result_can_be_saved_again(pruner: MetaPruner, target: TaskData, tmp_path: Path) -> None:
    first = pruner.adapt(target, **FAST).save_pretrained(tmp_path / "first")
    second = load_result(first).save_pretrained(tmp_path / "second")
    assert (second / "report.md").read_text() == (first / "report.md").read_text()
    for file in second.glob("report.*"):
        file.unlink()
    third = load_result(second).save_pretrained(tmp_path / "third")
    assert not (third / "report.json").exists()  # nothing is made up


def test_no_bank_there(tmp_path: Path) -> None:
    with pytest.raises(MetaPruneError, match="there is no folder"):
        MetaPruner.from_hub(tmp_path / "nosuch")


def test_tiny_tasks(pruner: MetaPruner, task_data: TaskData) -> None:
    one_each = task_data.select((0, 1, 2), per_class=1)
    report = pruner.adapt(one_each, **FAST).report
    assert report.train_images == 3
    assert np.isfinite(report.losses).all()


def test_reports_show_text_of_others_as_text(pruner: MetaPruner, target: TaskData, tmp_path: Path) -> None:
    result = pruner.adapt(target, **FAST)
    result.report.source = "<script>alert(1)</script> | [x](javascript:1)"
    result.report.neighbors[0]["labels"] = ["![a](http://x/y.png)", "**b**"]
    save_report(result.report, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "<script>" not in text
    assert "![a](" not in text
    assert "**b**" not in text

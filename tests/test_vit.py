"""The whole way with a vision transformer: bank, vote, score masks, budgets, saving, loading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.bank.entry import Entry
from hf_metaprune.bank.factory import build_bank
from hf_metaprune.bank.validation import validate_bank
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import FormatError, OptionError
from hf_metaprune.masks.scores import ScoreMask, sum_scores
from hf_metaprune.methods import LearnedScoreOptions
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.saving import load_model
from hf_metaprune.models.score_file import load_scores, save_scores
from hf_metaprune.result import load_result
from tests import forked
from tests.models.test_modeling import compile_model

FAST = {"steps": 4, "neighbors": 2, "batch_size": 16}
TASKS = [(0, 1, 2), (2, 3, 4), (1, 4, 5)]


@pytest.fixture(scope="module")
def vit_bank_folder(tmp_path_factory: pytest.TempPathFactory, vit_base: BaseModel, task_data: TaskData) -> Path:
    folder = tmp_path_factory.mktemp("vit") / "bank"
    bank = Bank.create(folder, vit_base, name="tiny vit", defaults={"ratio": 0.7})
    options = LearnedScoreOptions(ratio=0.7, steps=20, batch_size=18, precision="fp32")
    for method, tasks in (("ahnp", TASKS[:2]), ("amp", TASKS[2:])):
        entries = build_bank(bank, task_data, tasks, method=method, options=options, device=torch.device("cpu"))
        assert len(list(entries)) == len(tasks)
    return folder


@pytest.fixture
def pruner(vit_bank_folder: Path) -> MetaPruner:
    return MetaPruner.from_hub(vit_bank_folder)


@pytest.fixture
def target(task_data: TaskData) -> TaskData:
    return task_data.select((0, 2, 5))


@pytest.fixture
def own_vit_bank(vit_bank_folder: Path, tmp_path: Path) -> Bank:
    import shutil

    return Bank.open(shutil.copytree(vit_bank_folder, tmp_path / "bank"))


def test_the_bank_is_sound_and_its_entries_have_scores(pruner: MetaPruner) -> None:
    assert validate_bank(pruner.bank) == []
    for entry in pruner.bank:
        scores = entry.score_mask()
        assert scores.sizes == pruner.bank.sizes
        assert scores == entry.load_model().score_mask
        assert scores != ScoreMask.from_mask(entry.mask)


@pytest.mark.parametrize("strategy", ["mvp", "smsp", "no-bank", "random"])
def test_every_strategy_adapts_a_transformer(pruner: MetaPruner, target: TaskData, strategy: str) -> None:
    report = pruner.adapt(target, **FAST, strategy=strategy).report
    assert report.params < 0.6 * report.base_params
    assert report.options["optimizer"] == "adamw"
    assert report.options["lr"] < 0.003  # the least of SGD
    assert set(report.accuracy_at_step) == {0, 4}
    again = pruner.adapt(target, **FAST, strategy=strategy).report
    assert again.accuracy_at_step == report.accuracy_at_step


@pytest.mark.slow
def test_the_more_stays_the_lower_the_rate(pruner: MetaPruner, target: TaskData) -> None:
    plan = pruner.plan(target, **FAST)
    rates = [pruner.make(plan, ratio=ratio).report.options["lr"] for ratio in (0.95, 0.9, 0.8, 0.5)]
    assert rates == pytest.approx([0.0003, 0.0003, 0.00015, 0.00006])
    within = pruner.make(plan, max_params=plan.cost(0.5)[0]).report
    assert within.options["lr"] == pytest.approx(0.0003 * 0.1 / (1 - within.ratio))
    plan = replace(plan, data=replace(target, train=target.train.subset(list(range(len(target.train))) * 20)))
    assert plan.training_at(0.5).lr == plan.training.lr  # with many images
    for overrides in ({"lr": 0.0004}, {"preset": "paper"}):
        report = pruner.adapt(target, **FAST, **overrides, ratio=0.5).report
        assert report.options["lr"] == overrides.get("lr", 0.0002)


@pytest.mark.slow
def test_a_network_that_no_longer_looks_at_its_image_says_so(pruner: MetaPruner, target: TaskData) -> None:
    blind = pruner.adapt(target, **FAST, layer_ratios=("*.attn=1",)).report
    assert any(note.startswith("every image gets the same answer") for note in blind.notes)
    seeing = pruner.adapt(target, **FAST, layer_ratios=("*.mlp=1",)).report
    assert not any(note.startswith("every image") for note in seeing.notes)


@pytest.mark.slow
def test_rounding_that_changes_the_ratio_is_said(pruner: MetaPruner, target: TaskData) -> None:
    report = pruner.adapt(target, **FAST, ratio=0.9, round_to=16).report
    (note,) = (note for note in report.notes if note.startswith("round_to=16 removes"))
    assert f"{report.ratio:.0%}" in note
    assert "where the ratio alone would remove 88%" in note
    assert not any("round_to" in note for note in pruner.adapt(target, **FAST, ratio=0.5, round_to=2).report.notes)


def test_what_smsp_makes_is_the_thresholded_sum_of_scores(pruner: MetaPruner, target: TaskData) -> None:
    result = pruner.adapt(target, **FAST, strategy="smsp", ratio=0.5, activations=0.0)
    entries = [pruner.bank[n["id"]] for n in result.report.neighbors]
    scores = sum_scores([entry.score_mask() for entry in entries])
    mask = result.model.mask()
    for name, units in mask.items():
        rest = np.setdiff1d(np.arange(mask.sizes[name]), units)
        assert len(units) == round(0.5 * mask.sizes[name])
        assert scores[name][units].min() >= scores[name][rest].max()
    assert result.model.score_mask == scores


@pytest.mark.slow
@pytest.mark.parametrize("split", ["layer", "global"])
def test_what_a_neighbor_holds_stays_first_and_activations_order_the_rest(
    pruner: MetaPruner, target: TaskData, split: str
) -> None:
    """Units that no neighbor was trained with are ordered by their scores and the base's activations together."""
    still = FAST | {"steps": 0, "strategy": "smsp", "split": split}
    results = {a: pruner.adapt(target, **still, ratio=0.2, activations=a) for a in (0.0, 0.5, 1.0)}
    entries = [pruner.bank[n["id"]] for n in results[0.5].report.neighbors]
    union, scores = entries[0].mask | entries[1].mask, sum_scores([entry.score_mask() for entry in entries])
    assert union <= results[0.5].model.mask()
    others = {a: one.model.score_mask for a, one in results.items()}
    for name, units in (~union).items():
        active, mean = others[1.0][name][units], others[0.5][name][units]
        assert mean == pytest.approx((scores[name][units] + active) / 2, rel=1e-5)
        assert np.array_equal(np.argsort(others[0.5][name][union[name]]), np.argsort(scores[name][union[name]]))
    few = pruner.adapt(target, **still, ratio=0.9).model.mask()  # of what they hold the scores alone choose
    assert few == pruner.adapt(target, **still, ratio=0.9, activations=0.0).model.mask()
    assert few <= union


def test_scores_that_contradict_an_entry_do_not_overrule_its_mask(
    pruner: MetaPruner, target: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Entry.score_mask
    monkeypatch.setattr(
        Entry, "score_mask", lambda self: ScoreMask({n: 1 / (0.01 + s) for n, s in honest(self).items()})
    )
    result = pruner.adapt(target, **(FAST | {"neighbors": 1, "steps": 0}), strategy="smsp")
    assert result.model.mask() == pruner.bank[result.report.neighbors[0]["id"]].mask


@pytest.mark.slow
def test_weights_come_from_neighbors_or_from_the_base(pruner: MetaPruner, target: TaskData) -> None:
    still = FAST | {"steps": 0, "statistics": "moving", "strategy": "smsp", "ratio": 0.5}
    models = {w: pruner.adapt(target, **still, weights=w).model for w in ("neighbors", "base")}
    units = models["base"].mask()["blocks.0.mlp"]
    name = "blocks.0.mlp.fc1.weight"
    base = pruner.bank.base.state[name][units.tolist()]
    assert torch.equal(models["base"].network.state_dict()[name], base)
    assert not torch.equal(models["neighbors"].network.state_dict()[name], base)
    entries = [pruner.bank[n["id"]].mask for n in pruner.adapt(target, **still).report.neighbors]
    for ratio in (0.9, 0.5, 0.1):  # "auto" is the neighbors' where they hold three quarters
        results = {
            w: pruner.adapt(target, **(still | {"ratio": ratio}), weights=w) for w in ("neighbors", "base", "auto")
        }
        mask = results["auto"].model.mask()
        share = (mask & (entries[0] | entries[1])).n_kept / mask.n_kept
        same = "neighbors" if share >= 0.75 else "base"
        states = {w: one.model.network.state_dict()[name] for w, one in results.items()}
        assert torch.equal(states["auto"], states[same]), (ratio, share)
        assert any("all start with the base's" in note for note in results["auto"].report.notes) == (same == "base")
    assert share < 0.75
    paper = pruner.adapt(target, steps=1, preset="paper", strategy="smsp", batch_size=16).report
    assert paper.options["weights"] == "base"
    assert paper.options["lr"] == 0.0002


@pytest.mark.slow
def test_a_ratio_that_no_entry_has_is_cut_and_what_nobody_holds_is_said(pruner: MetaPruner, target: TaskData) -> None:
    report = pruner.adapt(target, **FAST, strategy="smsp", ratio=0.1).report
    assert report.ratio == 0.1
    assert any("are held by no neighbor: all start with the base's weights" in note for note in report.notes)
    small = pruner.adapt(target, **(FAST | {"neighbors": 1}), ratio=0.9).report
    assert not any("held by no neighbor" in note for note in small.notes)


@pytest.mark.slow
def test_budgets_are_kept_and_out_of_reach_ones_refused(
    pruner: MetaPruner, target: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = pruner.adapt(target, **FAST).report
    for split in ("layer", "global"):
        by_params = pruner.adapt(target, **FAST, strategy="smsp", split=split, max_params=full.base_params // 2).report
        assert 0.4 * full.base_params < by_params.params <= 0.5 * full.base_params
        by_macs = pruner.adapt(target, **FAST, max_macs=full.base_macs // 2, split=split).report
        assert 0.4 * full.base_macs < by_macs.macs <= 0.5 * full.base_macs
    smallest = pruner.adapt(target, **FAST, layer_ratios=("*=1",)).report.macs
    between = pruner.adapt(target, **FAST, max_macs=smallest + 10_000).report  # less than one unit per layer
    assert smallest < between.macs <= smallest + 10_000
    assert any("layers keep no unit" in note for note in between.notes)
    monkeypatch.setattr(
        "hf_metaprune.pruner.find_voters", None
    )  # what is out of reach is refused before entries are ranked
    with pytest.raises(OptionError, match=r"max_macs=1: the smallest sub-network of this base has [\d,]+ MACs"):
        pruner.adapt(target, **FAST, max_macs=1)
    with pytest.raises(OptionError, match="max_latency_ms=0.0001: the smallest .* takes .* ms on this machine"):
        pruner.adapt(target, **FAST, max_latency_ms=1e-4)
    with pytest.raises(OptionError, match="ratio=0.5 and a budget"):
        pruner.adapt(target, **FAST, max_macs=10**6, ratio=0.5)


def test_single_layers_have_ratios_of_their_own(pruner: MetaPruner, target: TaskData) -> None:
    model = pruner.adapt(target, **FAST, layer_ratios=("*.attn=1", "blocks.1.mlp=0")).model
    counts = {name: len(units) for name, units in model.mask().items()}
    assert counts["blocks.0.attn"] == counts["blocks.2.attn"] == 0
    assert counts["blocks.1.mlp"] == 48
    assert counts["blocks.0.mlp"] == 14
    with pytest.raises(OptionError, match="names no prunable layer"):
        pruner.adapt(target, **FAST, layer_ratios=("layer1=0.5",))


@pytest.mark.slow
def test_a_mask_that_empties_every_branch_still_classifies(
    pruner: MetaPruner, target: TaskData, tmp_path: Path
) -> None:
    result = pruner.adapt(target, **FAST, layer_ratios=("*=1",))
    assert result.model.mask().n_kept == 0
    assert result.model.config.ratio == 1.0
    result.save_pretrained(tmp_path / "model")
    again = load_result(tmp_path / "model")
    pixels = target.evaluation.preprocessing.normalize(target.evaluation.images[:2])
    assert torch.allclose(again.model(pixels).logits, result.model(pixels).logits, atol=1e-6)


@pytest.mark.slow
def test_one_vote_serves_all_sizes_of_a_sweep(pruner: MetaPruner, target: TaskData) -> None:
    results = pruner.sweep(target, (0.3, 0.6, 0.9), **FAST, strategy="smsp")
    masks = [result.model.mask() for result in results]
    assert masks[2] <= masks[1] <= masks[0]
    assert [result.report.ratio for result in results] == [0.3, 0.6, 0.9]
    assert results[0].report.params > results[1].report.params > results[2].report.params
    alone = pruner.adapt(target, **FAST, strategy="smsp", ratio=0.6)
    assert alone.report.accuracy_at_step == results[1].report.accuracy_at_step
    for options in ({"ratio": 0.5}, {"max_macs": 10}, {"compare": True}):
        with pytest.raises(OptionError, match="not for a sweep"):
            pruner.sweep(target, **FAST, **options)
    with pytest.raises(OptionError, match="ratio"):
        pruner.sweep(target, (0.5, 1.5), **FAST)
    for ratios, message in (((), "at least one ratio"), ((0.5, 0.50000001), "are the same"), (0.5, "must be numbers")):
        with pytest.raises(OptionError, match=message):
            pruner.sweep(target, ratios, **FAST)
    assert len(pruner.sweep(target, np.array([0.5]), **FAST)) == 1


@pytest.mark.slow
def test_auto_classes_load_it_and_torch_exports_it(pruner: MetaPruner, target: TaskData, tmp_path: Path) -> None:
    result = pruner.adapt(target, **FAST, strategy="smsp", layer_ratios=("blocks.0.attn=1",))
    out = result.save_pretrained(tmp_path / "out")
    pixels = target.evaluation.preprocessing.normalize(target.evaluation.images[:4])
    model = AutoModelForImageClassification.from_pretrained(out)
    with torch.no_grad():
        logits = result.model(pixels).logits
        assert torch.allclose(model(pixels).logits, logits, atol=1e-5)
        assert torch.allclose(torch.export.export(model, (pixels,)).module()(pixels).logits, logits, atol=1e-5)
    assert load_model(out).score_mask == result.model.score_mask


@pytest.mark.slow
def test_compiled_it_computes_the_same(pruner: MetaPruner, target: TaskData, tmp_path: Path) -> None:
    result = pruner.adapt(target, **FAST, layer_ratios=("blocks.0.attn=1", "blocks.2.mlp=1"))
    result.save_pretrained(tmp_path / "model")
    pixels = target.evaluation.preprocessing.normalize(target.evaluation.images[:4])
    forked.run(compile_model, tmp_path / "model", pixels)


def other_base(path: Path, scores: ScoreMask) -> None:
    save_scores(scores, path, "1" * 64)


def other_layers(path: Path, scores: ScoreMask) -> None:
    save_scores(ScoreMask({"conv": [1.0]}), path, BASE)


def nan_scores(path: Path, scores: ScoreMask) -> None:
    from safetensors.numpy import save_file

    save_file({n: v * np.float32("nan") for n, v in scores.items()}, path, {"base_model_sha256": BASE})


def whole_numbers(path: Path, scores: ScoreMask) -> None:
    from safetensors.numpy import save_file

    save_file({n: v.astype(np.int64) for n, v in scores.items()}, path, {"base_model_sha256": BASE})


def cut_short(path: Path, scores: ScoreMask) -> None:
    save_scores(scores, path, BASE)
    path.write_bytes(path.read_bytes()[:-3])


def newer(path: Path, scores: ScoreMask) -> None:
    from safetensors.numpy import save_file

    save_file(dict(scores), path, {"base_model_sha256": BASE, "format_version": "2"})


BASE = "0" * 64


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_base, "are of another base"),
        (other_layers, "layers are not those"),
        (nan_scores, "finite"),
        (whole_numbers, "not floating-point numbers"),
        (cut_short, "cannot be read"),
        (newer, "another format version"),
    ],
)
def test_score_files_of_strangers_are_checked(
    tmp_path: Path, spoil: Callable[[Path, ScoreMask], None], message: str
) -> None:
    scores = ScoreMask({"a": [0.5, 1.0], "b": [2.0]})
    path = tmp_path / "mask_scores.safetensors"
    save_scores(scores, path, BASE)
    assert load_scores(path, scores.sizes, BASE) == scores
    spoil(path, scores)
    with pytest.raises(FormatError, match=message):
        load_scores(path, scores.sizes, BASE)


def test_scores_that_are_not_those_of_the_index_do_not_vote(own_vit_bank: Bank, target: TaskData) -> None:
    entry = next(iter(own_vit_bank))
    path = entry.folder / "mask_scores.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:])  # the last bit of a score
    assert [problem.what for problem in validate_bank(own_vit_bank)] == [
        f"{path} was altered: its sha256 is not that of the index"
    ]
    with pytest.raises(FormatError, match="not that of the index"):
        entry.score_mask()
    lenient = MetaPruner.from_hub(own_vit_bank.root, strict=False)
    report = lenient.adapt(target, **FAST, strategy="smsp").report
    assert entry.id not in [n["id"] for n in report.neighbors]
    assert any(entry.id in note for note in report.notes)
    path.unlink()
    assert [problem.what for problem in validate_bank(own_vit_bank)] == [f"{path} is missing"]

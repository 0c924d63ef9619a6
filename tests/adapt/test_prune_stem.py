"""Models whose stem is pruned, too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import FormatError, OptionError
from hf_metaprune.masks.mask import keep_count
from hf_metaprune.result import load_result

FAST = {"steps": 4, "neighbors": 2, "batch_size": 16, "eval_steps": (0,)}


@pytest.fixture
def target(task_data: TaskData) -> TaskData:
    return task_data.select((0, 2, 5))


@pytest.mark.slow
def test_a_pruned_stem_makes_a_cheaper_model_that_does_not_vote(
    pruner: MetaPruner, target: TaskData, own_bank: Bank, tmp_path: Path
) -> None:
    plain = pruner.adapt(target, **FAST)
    for strategy in ("mvp", "smsp", "no-bank", "random"):
        result = pruner.adapt(target, **FAST, strategy=strategy, prune_stem=True)
        assert result.report.macs < 0.8 * plain.report.macs
        assert result.report.params < plain.report.params
        assert not result.report.options["freeze_stem"]
        counts = {name: len(units) for name, units in result.model.mask().items()}
        assert counts["conv1.0"] == keep_count(8, 0.7)
    folder = result.save_pretrained(tmp_path / "model")
    pixels = target.evaluation.preprocessing.normalize(target.evaluation.images[:4])
    assert torch.allclose(load_result(folder).model(pixels).logits, result.model(pixels).logits, atol=1e-6)
    within = pruner.adapt(target, **FAST, prune_stem=True, max_macs=plain.report.macs // 2).report
    assert within.macs <= plain.report.macs // 2
    with pytest.raises(OptionError, match=r"max_macs=9: .* MACs; prune_stem=True \(--prune-stem\) allows smaller ones"):
        pruner.adapt(target, max_macs=9)
    with pytest.raises(OptionError, match=r"max_macs=9: .* MACs$"):
        pruner.adapt(target, max_macs=9, prune_stem=True)
    with pytest.raises(FormatError, match="a model whose stem is pruned is no voter"):
        own_bank.add(result.model, "stemless")

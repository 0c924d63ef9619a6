"""The whole way with a ConvNeXt: a base that timm saved, a bank, a budget, saving, loading, export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models._hub import save_for_hf
from transformers import AutoModelForImageClassification

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.bank.factory import build_bank
from hf_metaprune.bank.validation import validate_bank
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import ArchitectureError
from hf_metaprune.export import export_onnx
from hf_metaprune.methods import AhnpOptions
from hf_metaprune.models.architectures.lookup import find_architecture
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.result import AdaptResult
from tests.tiny import tiny_preprocessing

TINY_CONVNEXT = {"depths": [1, 2, 1, 1], "dims": [8, 12, 16, 20], "ls_init_value": 1.0}
BUDGET = 0.6  # of the base's multiplications


def adapted(base: BaseModel, task_data: TaskData, folder: Path) -> AdaptResult:
    bank = Bank.create(folder, base, name="tiny convnext", defaults={"ratio": 0.6})
    options = AhnpOptions(ratio=0.6, steps=6, batch_size=18, precision="fp32")
    tasks = [(0, 1, 2), (2, 3, 4)]
    assert (
        len(list(build_bank(bank, task_data, tasks, method="ahnp", options=options, device=torch.device("cpu")))) == 2
    )
    assert validate_bank(Bank.open(folder)) == []
    pruner, target = MetaPruner.from_hub(folder), task_data.select((0, 2, 5))
    fast = {"steps": 4, "neighbors": 2, "batch_size": 16, "strategy": "smsp"}
    full = pruner.plan(target, **fast).cost(0.0)
    return pruner.adapt(target, **fast, max_macs=round(BUDGET * full[1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_atto"])
def test_the_whole_way_from_a_base_to_a_file(name: str, task_data: TaskData, tmp_path: Path) -> None:
    """The MLPs of one network are linear layers, those of the other are convolutions."""
    torch.manual_seed(0)
    config = {"model_args": TINY_CONVNEXT, "pretrained_cfg": tiny_preprocessing().to_config() | {"num_classes": 7}}
    network = timm.create_model(name, num_classes=7, **TINY_CONVNEXT)
    save_for_hf(network, tmp_path / "base", model_config=config, safe_serialization=True)
    base = BaseModel.load(tmp_path / "base")
    result = adapted(base, task_data, tmp_path / "bank")
    report, mask = result.report, result.model.mask()
    assert report.options["optimizer"] == "adamw"
    share = report.macs / report.base_macs
    assert share == pytest.approx(BUDGET - 0.05, abs=0.05)
    assert all(len(units) >= 1 for units in mask.values())
    assert mask.n_kept < mask.n_units

    folder = result.save_pretrained(tmp_path / "model")
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = result.model.eval()(pixels).logits
        again = AutoModelForImageClassification.from_pretrained(folder).eval()
        assert torch.allclose(again(pixels).logits, expected, atol=1e-6)
        assert not torch.allclose(expected[0], expected[1], atol=1e-3)  # else any images would do
    assert again.mask() == mask

    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    export = export_onnx(again, base.preprocessing, tmp_path / "model.onnx")
    logits = onnxruntime.InferenceSession(export.path).run(["logits"], {"pixel_values": pixels.numpy()})[0]
    assert np.abs(logits - expected.numpy()).max() <= 1e-4


@pytest.mark.parametrize(
    "args",
    [
        {"use_grn": True},
        {"depths": [1, 1, 1, 1000]},
        {"dims": 8},
        {"kernel_sizes": [7, 7.5, 7, 7]},
        {"ls_init_value": -1.0},
        {"norm_layer": "batchnorm2d"},
        {"act_layer": "nosuch"},
    ],
)
def test_model_arguments_from_strangers_are_checked(args: dict) -> None:
    with pytest.raises(ArchitectureError, match=next(iter(args))):
        find_architecture("timm", "convnext_tiny").build("convnext_tiny", args, 5)

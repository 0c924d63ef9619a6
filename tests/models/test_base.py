"""Bases: of timm and of transformers, and what cannot be one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.bank.factory import build_bank
from hf_metaprune.config import MethodOptions
from hf_metaprune.errors import FormatError
from hf_metaprune.masks import Mask
from hf_metaprune.models.base import BaseModel
from hf_metaprune.models.saving import load_model, save_model
from hf_metaprune.models.slicing import ScatterBatchNorm2d, slice_network
from hf_metaprune.task import TaskData, draw_tasks
from tests.conftest import randomise_norms, tiny_preprocessing
from tests.models.conftest import copies, edit_config


def test_bases_that_cannot_be_used_are_refused(base_folder: Path, tmp_path: Path) -> None:
    import shutil

    def copy() -> Path:
        shutil.rmtree(tmp_path / "base", ignore_errors=True)
        return Path(shutil.copytree(base_folder, tmp_path / "base"))

    with pytest.raises(FormatError, match="cannot be read"):
        BaseModel.load(tmp_path)
    (copy() / "config.json").write_text("[]")
    with pytest.raises(FormatError, match="JSON object"):
        BaseModel.load(tmp_path / "base")
    (copy() / "config.json").write_text("{}")
    with pytest.raises(FormatError, match="neither"):
        BaseModel.load(tmp_path / "base")
    (copy() / "model.safetensors").write_bytes(b"123")
    with pytest.raises(FormatError, match="cannot be read"):
        BaseModel.load(tmp_path / "base")
    state = copies(copy() / "model.safetensors")
    save_file({n: t for n, t in state.items() if n != "fc.weight"}, tmp_path / "base" / "model.safetensors")
    with pytest.raises(FormatError, match="no classifier"):
        BaseModel.load(tmp_path / "base")
    save_file({n: t for n, t in state.items() if n != "bn1.weight"}, tmp_path / "base" / "model.safetensors")
    with pytest.raises(FormatError, match="does not fit"):
        BaseModel.load(tmp_path / "base")
    edit_config(copy(), pretrained_cfg=None)
    with pytest.raises(FormatError, match="preprocessing"):
        BaseModel.load(tmp_path / "base")
    edit_config(copy(), model_args={"channels": [65536] * 4})  # 150 GB, if it were made
    with pytest.raises(FormatError, match="has another shape"):
        BaseModel.load(tmp_path / "base")
    for names in ({"label_names": 5}, {"label_names": None, "id2label": ["a"]}):
        edit_config(copy(), **names)
        with pytest.raises(FormatError, match="label_names must be"):
            BaseModel.load(tmp_path / "base")


def test_a_base_of_transformers(tmp_path: Path) -> None:
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[16, 24], depths=[1, 1], num_labels=4)
    network = ResNetForImageClassification(config).eval()
    network.save_pretrained(tmp_path)
    ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875, resample=3).save_pretrained(tmp_path)
    base = BaseModel.load(tmp_path)
    assert (base.library, base.architecture) == ("transformers", "ResNetForImageClassification")
    assert base.preprocessing.input_size == (3, 64, 64)
    assert base.preprocessing.crop_pct == 0.875
    model = base.slice(base.config(Mask.full(base.sizes), base.label_names)).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x).logits, network(x).logits)


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
def test_the_whole_way_with_a_base_of_transformers(
    layer_type: str, task_data: TaskData, tmp_path: Path, run_python: Callable[..., str]
) -> None:
    """Its network is a transformers model inside ours, which transformers fills with first values by other ways."""
    from transformers import AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 24, 32], depths=[1, 2, 1], layer_type=layer_type, num_labels=4
    )
    randomise_norms(ResNetForImageClassification(config)).save_pretrained(tmp_path / "base")
    tiny_preprocessing().processor().save_pretrained(tmp_path / "base")
    base = BaseModel.load(tmp_path / "base")
    mask = Mask.random(base.sizes, 0.5, 1)
    model = base.slice(base.config(mask, ["a", "b", "c", "d"])).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = slice_network(base.network, mask).eval()(x).logits
        assert torch.allclose(model(x).logits, wanted, atol=1e-5)
        save_model(model, tmp_path)
        for dtype in (torch.float32, torch.float16):
            again = AutoModelForImageClassification.from_pretrained(tmp_path, dtype=dtype).float()
            assert torch.allclose(again(x).logits, wanted, atol=1e-5 if dtype == torch.float32 else 0.05)
    for made in (AutoModelForImageClassification.from_config(model.config), load_model(tmp_path)):
        norms = [m for m in made.modules() if isinstance(m, ScatterBatchNorm2d)]
        assert norms
        assert all(tuple(norm.index.tolist()) == norm.kept for norm in norms)
    bank = Bank.create(tmp_path / "bank", base, defaults={"ratio": 0.5})
    tasks = draw_tasks(range(6), 3, 3, 0)
    list(build_bank(bank, task_data, tasks, method="ifp", options=MethodOptions(ratio=0.5, steps=6, prune_every=2)))
    result = MetaPruner(bank).adapt(task_data.select((0, 1, 2)), steps=4, neighbours=2, batch_size=16)
    out = result.save_pretrained(tmp_path / "out")
    pixels = task_data.evaluation.preprocessing.normalise(task_data.evaluation.images[:4])
    torch.save((pixels, result.model(pixels).logits), tmp_path / "seen.pt")
    code = (
        "import sys, torch, hf_metaprune\n"
        "from transformers import AutoModelForImageClassification\n"
        "pixels, logits = torch.load(sys.argv[2])\n"
        "found = AutoModelForImageClassification.from_pretrained(sys.argv[1])(pixels).logits\n"
        "print('same' if torch.allclose(found, logits, atol=1e-5) else found - logits)\n"
    )
    assert "same" in run_python(code, str(out), str(tmp_path / "seen.pt"))

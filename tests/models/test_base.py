"""Bases: of timm and of transformers, and what cannot be one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.bank.factory import build_bank
from hf_metaprune.data.task import TaskData, draw_tasks
from hf_metaprune.errors import MAX_MESSAGE, ArchitectureError, FormatError, MetaPruneError
from hf_metaprune.masks.mask import Mask
from hf_metaprune.methods import get_method
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.saving import load_model, save_model
from hf_metaprune.models.slicing import ScatterBatchNorm2d, slice_network
from tests import forked
from tests.conftest import first_by_default
from tests.models.conftest import copies, edit_config
from tests.tiny import randomize_norms, tiny_preprocessing


def test_bases_that_cannot_be_used_are_refused(base_folder: Path, tmp_path: Path) -> None:
    import shutil

    def copy() -> Path:
        shutil.rmtree(tmp_path / "base", ignore_errors=True)
        return Path(shutil.copytree(base_folder, tmp_path / "base"))

    with pytest.raises(FormatError, match="cannot be read"):
        BaseModel.load(tmp_path)
    (copy() / "model.safetensors").rename(tmp_path / "base" / "pytorch_model.bin")
    with pytest.raises(FormatError, match="safe_serialization=True"):
        BaseModel.load(tmp_path / "base")
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
    for shape, reason in (((200_000, 0), "200,000 classes"), ((7, 1), "does not fit")):
        copy()
        save_file(state | {"fc.weight": torch.zeros(shape)}, tmp_path / "base" / "model.safetensors")
        with pytest.raises(FormatError, match=reason):
            BaseModel.load(tmp_path / "base")
    edit_config(copy(), pretrained_cfg=None)
    with pytest.raises(FormatError, match="preprocessing"):
        BaseModel.load(tmp_path / "base")
    edit_config(copy(), model_args={"channels": [65536] * 4})  # 150 GB, if it were made
    with pytest.raises(FormatError, match="has another shape"):
        BaseModel.load(tmp_path / "base")
    edit_config(copy(), model_args={"layers": [41, 40, 40, 40]})
    with pytest.raises(ArchitectureError, match="layers="):
        BaseModel.load(tmp_path / "base")
    (copy() / "config.json").write_text(json.dumps({"architecture": "a" * 1_000_000, "pretrained_cfg": {}}))
    with pytest.raises(MetaPruneError) as error:
        BaseModel.load(tmp_path / "base")
    assert len(str(error.value)) <= MAX_MESSAGE
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


def of_transformers(kind: str) -> torch.nn.Module:
    """A tiny network of transformers with random weights: "resnet basic", "resnet bottleneck", "vit" or "deit"."""
    import transformers

    torch.manual_seed(0)
    if kind.startswith("resnet"):
        sizes = {"embedding_size": 8, "hidden_sizes": [16, 24, 32], "depths": [1, 2, 1], "num_labels": 4}
        config = transformers.ResNetConfig(**sizes, layer_type=kind.split()[1])
        return randomize_norms(transformers.ResNetForImageClassification(config))
    name = {"vit": "ViT", "deit": "DeiT"}[kind]
    config = getattr(transformers, f"{name}Config")(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=20, image_size=32, patch_size=8,
        num_labels=4,
    )  # fmt: skip
    return getattr(transformers, f"{name}ForImageClassification")(config)


def way_with_a_base_of_transformers(kind: str, task_data: TaskData, tmp_path: Path) -> Path:
    """The whole way from a base to a saved model, in whose folder ``seen.pt`` holds pixels and their logits.

    Its network is a transformers model inside ours, which transformers fills with first values by other ways. On disk
    its tensors have other names than in memory, where transformers changes those (of a ViT).
    """
    from transformers import AutoModelForImageClassification

    network = of_transformers(kind).eval()
    network.save_pretrained(tmp_path / "base")
    tiny_preprocessing().processor().save_pretrained(tmp_path / "base")
    base = BaseModel.load(tmp_path / "base")
    assert all(torch.equal(tensor, base.state[name]) for name, tensor in network.state_dict().items())
    mask = Mask.random(base.sizes, 0.5, 1)
    model = base.slice(base.config(mask, ["a", "b", "c", "d"])).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected_logits = slice_network(base.network, mask).eval()(x).logits
        assert torch.allclose(model(x).logits, expected_logits, atol=1e-5)
        save_model(model, tmp_path)
        for dtype in (torch.float32, torch.float16):
            again = AutoModelForImageClassification.from_pretrained(tmp_path, dtype=dtype).float()
            assert torch.allclose(again(x).logits, expected_logits, atol=1e-5 if dtype == torch.float32 else 0.05)
    for instance in (AutoModelForImageClassification.from_config(model.config), load_model(tmp_path)):
        norms = [m for m in instance.modules() if isinstance(m, ScatterBatchNorm2d)]
        assert bool(norms) == kind.startswith("resnet")
        assert all(tuple(norm.index.tolist()) == norm.kept for norm in norms)
    bank = Bank.create(tmp_path / "bank", base, defaults={"ratio": 0.5})
    tasks = draw_tasks(range(6), 3, 3, 0)
    method = "ifp" if kind.startswith("resnet") else "ahnp"
    list(build_bank(bank, task_data, tasks, method=method, options=get_method(method).options(ratio=0.5, steps=6)))
    whole_bank = Bank.open(tmp_path / "bank")
    assert len(whole_bank) == len(tasks)
    result = MetaPruner(whole_bank).adapt(task_data.select((0, 1, 2)), steps=4, neighbors=2, batch_size=16)
    out = result.save_pretrained(tmp_path / "out")
    pixels = task_data.evaluation.preprocessing.normalize(task_data.evaluation.images[:4])
    torch.save((pixels, result.model(pixels).logits), out / "seen.pt")
    return out


@pytest.fixture(scope="module")
def adapted(task_data: TaskData, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The model that the whole way ends with, made once per kind."""
    folders: dict[str, Path] = {}

    def call(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = way_with_a_base_of_transformers(kind, task_data, tmp_path_factory.mktemp("way"))
        return folders[kind]

    return call


KINDS = ["resnet basic", "resnet bottleneck", "vit", "deit"]


@pytest.mark.parametrize("kind", first_by_default(*KINDS))
def test_the_whole_way_with_a_base_of_transformers(kind: str, adapted: Callable[[str], Path]) -> None:
    assert (adapted(kind) / "model.safetensors").exists()


@pytest.mark.slow
def test_another_process_loads_models_whose_base_is_of_transformers(adapted: Callable[[str], Path]) -> None:
    forked.run(load_models, [adapted(kind) for kind in KINDS])


def load_models(folders: list[Path]) -> None:
    from transformers import AutoModelForImageClassification

    for folder in folders:
        pixels, logits = torch.load(folder / "seen.pt")
        output = AutoModelForImageClassification.from_pretrained(folder)(pixels).logits
        assert torch.allclose(output, logits, atol=1e-5), folder


@pytest.mark.parametrize("kind", ["resnet basic", "vit"])
def test_weights_of_another_network_of_transformers_are_refused(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    of_transformers(kind).save_pretrained(tmp_path)
    tiny_preprocessing().processor().save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", (tmp_path / "config.json").read_text()
    state = copies(weights)
    name = next(n for n in state if n.endswith("bias") and not n.startswith("classifier"))
    for new_state, message in (
        ({n: t for n, t in state.items() if n != name}, "another shape or is missing"),
        (state | {name: state[name][:-1], "more": torch.zeros(9)}, "tensor .* has another shape"),
        ({n: t for n, t in state.items() if n != name} | {"more": torch.zeros(999)}, "tensor .* is missing"),
        (state | {"more": torch.zeros(2)}, "tensor more is not part of it; config and weights must be saved"),
    ):
        save_file(new_state, weights)
        with pytest.raises(FormatError, match=message):
            BaseModel.load(tmp_path)
    save_file(state, weights)
    (tmp_path / "config.json").write_text(config)
    edit_config(tmp_path, **({"hidden_sizes": [1024] * 3} if kind != "vit" else {"intermediate_size": 65536}))
    with pytest.raises(FormatError, match="another shape or is missing"):  # before so much memory is taken
        BaseModel.load(tmp_path)
    assert "LOAD REPORT" not in caplog.text

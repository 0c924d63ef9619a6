"""The sliced model as a transformers model: saving, loading, Auto classes, pipeline, Trainer, export, compile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.bank.factory import build_bank
from hf_metaprune.config import MethodOptions
from hf_metaprune.errors import BaseMismatchError, FormatError, OptionError
from hf_metaprune.masks import Mask
from hf_metaprune.models.base import BaseModel
from hf_metaprune.models.configuration import MetaPrunedConfig
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.models.saving import load_model, save_model
from hf_metaprune.models.slicing import ScatterBatchNorm2d, slice_network
from hf_metaprune.task import TaskData, draw_tasks
from tests.conftest import randomise_norms, tiny_preprocessing

LABELS = ["cat", "dog", "bee"]


@pytest.fixture
def model(base: BaseModel) -> MetaPrunedForImageClassification:
    torch.manual_seed(0)
    config = base.config(
        Mask.random(base.sizes, 0.6, 1), LABELS, synsets=["cat.n.01", None, None], ratio=0.6, method="x"
    )
    return base.slice(config).eval()


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_it_is_the_slice_of_the_base(
    base: BaseModel, model: MetaPrunedForImageClassification, pixels: torch.Tensor
) -> None:
    sliced = slice_network(base.network, model.mask())
    features = base.family.features(sliced, pixels)
    assert torch.equal(model.features(pixels), features)
    assert model(pixels).logits.shape == (4, 3)


def test_labels_give_a_loss_and_tuples_are_had_on_demand(
    model: MetaPrunedForImageClassification, pixels: torch.Tensor
) -> None:
    labels = torch.tensor([0, 1, 2, 0])
    out = model(pixels, labels=labels)
    assert torch.allclose(out.loss, torch.nn.functional.cross_entropy(out.logits, labels))
    assert len(model(pixels, return_dict=False)) == 1
    assert len(model(pixels, labels=labels, return_dict=False)) == 2


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 2e-2), ("bfloat16", 2e-1)])
def test_saving_and_loading(
    model: MetaPrunedForImageClassification, pixels: torch.Tensor, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    from transformers import AutoConfig, AutoModelForImageClassification

    save_model(model, tmp_path, dtype)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == dtype
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(model.state_dict())
        metadata = file.metadata()
    assert metadata["masks_digest"] == model.mask().digest()
    assert json.loads(metadata["labels"]) == LABELS
    assert metadata["format_version"] == "1"
    assert isinstance(AutoConfig.from_pretrained(tmp_path), MetaPrunedConfig)
    auto = AutoModelForImageClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    own = load_model(tmp_path)
    assert own.config.synsets == ["cat.n.01", None, None]
    expected = model(pixels).logits
    for loaded in (auto, own):
        assert isinstance(loaded, MetaPrunedForImageClassification)
        assert loaded.mask() == model.mask()
        assert (loaded(pixels).logits - expected).abs().max() <= tolerance


@torch.no_grad()
def test_save_pretrained_writes_the_same_format(
    model: MetaPrunedForImageClassification, pixels: torch.Tensor, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata()["masks_digest"] == model.mask().digest()
    assert torch.equal(load_model(tmp_path)(pixels).logits, model(pixels).logits)


PIPELINE = """
import json, sys
import hf_metaprune
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
folder, image = sys.argv[1:]
from PIL import Image
picture = Image.open(image)
pixels = AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")
logits = AutoModelForImageClassification.from_pretrained(folder)(**pixels).logits
found = pipeline("image-classification", folder)(image)
print(json.dumps({"logits": logits[0].tolist(), "scores": {f["label"]: f["score"] for f in found}}))
"""


@torch.no_grad()
def test_another_process_gives_the_same_logits(
    base: BaseModel, model: MetaPrunedForImageClassification, tmp_path: Path, run_python
) -> None:
    save_model(model, tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    picture.save(tmp_path / "picture.png")
    found = json.loads(run_python(PIPELINE, str(tmp_path), str(tmp_path / "picture.png")).splitlines()[-1])
    pixels = base.preprocessing.processor()(picture, return_tensors="pt")["pixel_values"]
    expected = model(pixels).logits[0]
    assert found["logits"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert found["scores"] == pytest.approx(dict(zip(LABELS, expected.softmax(0).tolist(), strict=True)), abs=1e-5)


def test_the_trainer_trains_it(model: MetaPrunedForImageClassification, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    data = [{"pixel_values": torch.randn(3, 32, 32) + i % 3, "labels": i % 3} for i in range(12)]
    arguments = TrainingArguments(
        tmp_path, max_steps=3, per_device_train_batch_size=4, learning_rate=1e-3, report_to=[], use_cpu=True,
        disable_tqdm=True, save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    before = model.classifier.weight.detach().clone()
    result = Trainer(model, arguments, train_dataset=data).train()
    assert np.isfinite(result.training_loss)
    assert not torch.equal(before, model.classifier.weight)


def test_the_loss_counts_the_images_of_all_accumulated_batches(
    model: MetaPrunedForImageClassification, pixels: torch.Tensor
) -> None:
    """The Trainer passes how many images a step has; the parts' losses must add up to their mean."""
    labels = torch.arange(len(pixels)) % 3
    whole = model(pixels, labels=labels).loss
    parts = sum(
        model(x[None], labels=y[None], num_items_in_batch=torch.tensor(len(pixels))).loss
        for x, y in zip(pixels, labels, strict=True)
    )
    assert torch.allclose(parts, whole, rtol=1e-5)


@torch.no_grad()
def test_export_and_compile(model: MetaPrunedForImageClassification, pixels: torch.Tensor) -> None:
    expected = model(pixels).logits
    program = torch.export.export(model, (pixels,))
    assert torch.allclose(program.module()(pixels).logits, expected, atol=1e-5)
    compiled = torch.compile(model, backend="aot_eager")
    assert torch.allclose(compiled(pixels).logits, expected, atol=1e-5)


def test_no_full_size_tensor_is_held(base: BaseModel, model: MetaPrunedForImageClassification) -> None:
    mask = model.mask()
    for name, module in model.network.named_modules():
        if name in mask and mask.sizes[name] > len(mask[name]):
            assert module.weight.shape[0] == len(mask[name])
        if isinstance(module, ScatterBatchNorm2d):
            assert module.running_mean.shape[0] == len(module.kept)
    held = sum(t.numel() for t in model.state_dict().values())
    assert held < 0.45 * sum(t.numel() for t in base.state.values())


def test_a_config_of_a_newer_format_is_refused(model: MetaPrunedForImageClassification, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    edit(tmp_path, format_version=2)
    with pytest.raises(FormatError, match="format version 2.*upgrade"):
        load_model(tmp_path)


def copies(path: Path) -> dict[str, torch.Tensor]:
    """Tensors that do not lie in the file: writing over a mapped file would end the process."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def edit(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": None}, "mask"),
        ({"masks": {}}, "do not fit"),
        ({"base_model": None}, "base_model"),
        ({"base_model": {"library": "timm", "architecture": "vgg11"}}, "supported"),
        (
            {"base_model": {"library": "timm", "architecture": "resnet18", "model_args": {"checkpoint_path": "x"}}},
            "checkpoint_path",
        ),
        ({"model_type": "vit"}, "model_type"),
        ({"id2label": {"0": "a", "1": "b"}}, "shape|labels"),
        ({"ratio": "high"}, "ratio"),
        ({"base_model": {"library": "timm", "architecture": "resnet18", "model_args": [1]}}, "must be an object"),
        ({"base_model": {"library": "timm", "architecture": "resnet18", "model_args": {"act_layer": "x"}}}, "timm"),
        ({"num_labels": 10**9, "id2label": None}, "shape"),
        ({"id2label": ["a", "b"]}, "config.json"),
    ],
)
def test_altered_configs_are_refused(
    model: MetaPrunedForImageClassification, tmp_path: Path, changes: dict, message: str
) -> None:
    from hf_metaprune.errors import MetaPruneError

    save_model(model, tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(MetaPruneError, match=message):
        load_model(tmp_path)


def test_a_name_for_each_of_a_billion_labels_is_not_made() -> None:
    with pytest.raises(FormatError, match="1000000000 labels"):
        MetaPrunedConfig(num_labels=10**9)


def test_what_chooses_code_and_kernels_is_not_read(model: MetaPrunedForImageClassification, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    edit(tmp_path, attn_implementation="flash_attention_2", quantization_config={"quant_method": "bitsandbytes"})
    assert load_model(tmp_path).mask() == model.mask()


def test_models_of_several_dtypes_live_in_one_process(
    base: BaseModel, model: MetaPrunedForImageClassification, tmp_path: Path
) -> None:
    """The network that is built once for all of a bank's entries must not bring the first one's dtype along."""
    from transformers import AutoModelForImageClassification as auto

    for dtype in ("float16", "float32", "bfloat16"):
        (tmp_path / dtype).mkdir()
        save_model(model, tmp_path / dtype, dtype)
    for dtype in ("float16", "float32", "bfloat16", "float16"):
        found = auto.from_pretrained(tmp_path / dtype)
        assert {p.dtype for p in found.parameters()} == {getattr(torch, dtype)}
        assert auto.from_pretrained(tmp_path / dtype, dtype=torch.float32).dtype == torch.float32
        assert load_model(tmp_path / dtype).dtype == torch.float32
        assert base.slice(model.config).dtype == torch.float32


def test_other_bases_are_refused(model: MetaPrunedForImageClassification, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    with pytest.raises(BaseMismatchError, match="belongs to base"):
        load_model(tmp_path, expected="0" * 64)


def test_altered_weights_are_refused(model: MetaPrunedForImageClassification, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    state = copies(path)
    name = "network.layer1.0.conv1.weight"

    path.write_bytes(whole[:-100])
    with pytest.raises(FormatError, match="cannot be read.*cut short"):
        load_model(tmp_path)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(FormatError, match="cannot be read"):
        load_model(tmp_path)
    path.unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        load_model(tmp_path)
    save_file({n: t for n, t in state.items() if n != name}, path)
    with pytest.raises(FormatError, match="missing or too many"):
        load_model(tmp_path)
    save_file(state | {name: state[name][:, :1].contiguous()}, path)
    with pytest.raises(FormatError, match="shape"):
        load_model(tmp_path)
    save_file(state | {name: state[name].int()}, path)
    with pytest.raises(FormatError, match="dtype"):
        load_model(tmp_path)
    save_file(state | {name: torch.full_like(state[name], float("nan"))}, path)
    with pytest.raises(FormatError, match="not finite"):
        load_model(tmp_path)
    save_file(state, path, metadata={"masks_digest": "0"})
    with pytest.raises(FormatError, match="masks_digest"):
        load_model(tmp_path)
    save_file(state, path, metadata={"format_version": "7"})
    with pytest.raises(FormatError, match="newer format"):
        load_model(tmp_path)


def test_values_that_do_not_fit_a_dtype_are_refused(model: MetaPrunedForImageClassification, tmp_path: Path) -> None:
    with torch.no_grad():
        model.classifier.bias[0] = 1e6
    with pytest.raises(FormatError, match="not finite in float16"):
        save_model(model, tmp_path, "float16")
    with pytest.raises(OptionError, match="float8"):
        save_model(model, tmp_path, "float8")


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
    edit(copy(), pretrained_cfg=None)
    with pytest.raises(FormatError, match="preprocessing"):
        BaseModel.load(tmp_path / "base")
    edit(copy(), model_args={"channels": [65536] * 4})  # 150 GB, if it were made
    with pytest.raises(FormatError, match="has another shape"):
        BaseModel.load(tmp_path / "base")
    for names in ({"label_names": 5}, {"label_names": None, "id2label": ["a"]}):
        edit(copy(), **names)
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

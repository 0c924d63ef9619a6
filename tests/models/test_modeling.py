"""The sliced model as a transformers model: saving, loading, Auto classes, pipeline, Trainer, export, compile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.configuration import MetaPrunedConfig
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.models.saving import load_model, save_model
from hf_metaprune.models.slicing import ScatterBatchNorm2d, slice_network
from tests import forked
from tests.models.conftest import LABELS


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
    for copy in (auto, own):
        assert isinstance(copy, MetaPrunedForImageClassification)
        assert copy.mask() == model.mask()
        assert (copy(pixels).logits - expected).abs().max() <= tolerance


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
predictions = pipeline("image-classification", folder)(image)
print(json.dumps({"logits": logits[0].tolist(), "scores": {p["label"]: p["score"] for p in predictions}}))
"""


@pytest.mark.slow
@torch.no_grad()
def test_another_process_gives_the_same_logits(
    base: BaseModel, model: MetaPrunedForImageClassification, tmp_path: Path, run_python
) -> None:
    save_model(model, tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    picture.save(tmp_path / "picture.png")
    answer = json.loads(run_python(PIPELINE, str(tmp_path), str(tmp_path / "picture.png")).splitlines()[-1])
    pixels = base.preprocessing.processor()(picture, return_tensors="pt")["pixel_values"]
    expected = model(pixels).logits[0]
    assert answer["logits"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert answer["scores"] == pytest.approx(dict(zip(LABELS, expected.softmax(0).tolist(), strict=True)), abs=1e-5)


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
def compile_model(folder: Path, pixels: torch.Tensor) -> None:
    """Dynamo does not understand the probes of coverage, which another process has not."""
    model = load_model(folder).eval()
    compiled = torch.compile(model, backend="aot_eager")
    assert torch.allclose(compiled(pixels).logits, model(pixels).logits, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_export_and_compile(model: MetaPrunedForImageClassification, pixels: torch.Tensor, tmp_path: Path) -> None:
    program = torch.export.export(model, (pixels,))
    assert torch.allclose(program.module()(pixels).logits, model(pixels).logits, atol=1e-5)
    save_model(model, tmp_path)
    forked.run(compile_model, tmp_path, pixels)


def test_no_full_size_tensor_is_held(base: BaseModel, model: MetaPrunedForImageClassification) -> None:
    mask = model.mask()
    for name, module in model.network.named_modules():
        if name in mask and mask.sizes[name] > len(mask[name]):
            assert module.weight.shape[0] == len(mask[name])
        if isinstance(module, ScatterBatchNorm2d):
            assert module.running_mean.shape[0] == len(module.kept)
    size = sum(t.numel() for t in model.state_dict().values())
    assert size < 0.45 * sum(t.numel() for t in base.state.values())


def test_models_of_several_dtypes_live_in_one_process(
    base: BaseModel, model: MetaPrunedForImageClassification, tmp_path: Path
) -> None:
    """The network that is built once for all of a bank's entries must not bring the first one's dtype along."""
    from transformers import AutoModelForImageClassification as auto

    for dtype in ("float16", "float32", "bfloat16"):
        (tmp_path / dtype).mkdir()
        save_model(model, tmp_path / dtype, dtype)
    for dtype in ("float16", "float32", "bfloat16", "float16"):
        copy = auto.from_pretrained(tmp_path / dtype)
        assert {p.dtype for p in copy.parameters()} == {getattr(torch, dtype)}
        assert auto.from_pretrained(tmp_path / dtype, dtype=torch.float32).dtype == torch.float32
        assert load_model(tmp_path / dtype).dtype == torch.float32
        assert base.slice(model.config).dtype == torch.float32

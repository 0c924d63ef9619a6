"""Export: the ONNX file computes what the model does, says what it needs, and runs without this library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from hf_metaprune import MetaPruner
from hf_metaprune.cli.app import run
from hf_metaprune.errors import DataError, MissingPackageError, OptionError
from hf_metaprune.export import export_onnx, read_examples
from hf_metaprune.masks import Mask
from hf_metaprune.models.base import BaseModel
from hf_metaprune.result import AdaptResult
from hf_metaprune.task import TaskData
from tests.conftest import REPO


@pytest.fixture(scope="module")
def adapted(bank_folder: Path, task_data: TaskData) -> AdaptResult:
    return MetaPruner.from_hub(bank_folder).adapt(task_data.select((0, 2, 5)), steps=20, batch_size=16, neighbours=1)


@pytest.fixture(scope="module")
def folder(adapted: AdaptResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapted.save_pretrained(tmp_path_factory.mktemp("export") / "model")


def cli(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as done:
        run(["export", *arguments])
    assert done.value.code == code


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    cli(str(folder))
    return folder / "model.onnx"


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3])
def test_the_file_computes_the_same_for_any_batch(adapted: AdaptResult, exported: Path, batch: int) -> None:
    pixels = torch.randn(batch, 3, 32, 32)
    session = onnxruntime.InferenceSession(exported)
    found = session.run(["logits"], {"pixel_values": pixels.numpy()})[0]
    assert np.abs(found - adapted.model(pixels).logits.numpy()).max() <= 1e-4
    assert adapted.model.config.num_labels == found.shape[1]


def test_a_transformer_with_an_empty_branch_is_exported(vit_base: BaseModel, tmp_path: Path) -> None:
    sizes = vit_base.sizes
    mask = Mask({n: [] if n in ("blocks.0.attn", "blocks.1.mlp") else range(s // 2) for n, s in sizes.items()}, sizes)
    model = vit_base.slice(vit_base.config(mask, ["a", "b"]))
    made = export_onnx(model, vit_base.preprocessing, tmp_path / "model.onnx")
    assert made.difference <= 1e-4
    assert made.agreement == 1.0


def test_the_file_says_its_labels_and_preprocessing_and_no_path_of_this_machine(
    adapted: AdaptResult, exported: Path
) -> None:
    proto = onnx.load(exported)
    facts = {prop.key: json.loads(prop.value) for prop in proto.metadata_props}
    assert facts["labels"] == ["cat", "truck", "teapot"]
    assert facts["preprocessing"]["input_size"] == [3, 32, 32]
    content = exported.read_bytes()
    for secret in (str(REPO), "site-packages", str(Path.home())):
        assert secret.encode() not in content
    assert len(content) < 1.3 * sum(t.numel() * t.element_size() for t in adapted.model.state_dict().values()) + 60_000


def test_int8_is_smaller_and_agrees(folder: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli(str(folder), "--int8", "--images", str(photos), "--json")
    small = json.loads(capsys.readouterr().out)
    cli(str(folder), "--images", str(photos), "--json", "--out", str(folder / "plain.onnx"))
    plain = json.loads(capsys.readouterr().out)
    assert small["agreement"] >= 0.9
    assert plain["agreement"] == 1.0
    assert Path(small["out"]).name == "model_int8.onnx"
    types = {tensor.data_type for tensor in onnx.load(small["out"]).graph.initializer}
    assert onnx.TensorProto.INT8 in types
    (folder / "plain.onnx").unlink()


def test_the_example_needs_neither_this_library_nor_torch(adapted: AdaptResult, exported: Path, tmp_path: Path) -> None:
    """As on a Raspberry Pi: only onnxruntime, numpy and pillow can be imported."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    blocker = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in ('torch', 'timm', 'transformers', 'hf_metaprune', 'onnx'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    (tmp_path / "sitecustomize.py").write_text(blocker)
    done = subprocess.run(
        [sys.executable, REPO / "examples" / "classify.py", exported, tmp_path / "photo.png"],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    path, *classes = done.stdout.strip().split("\t")
    assert path.endswith("photo.png")
    found = adapted.predict(tmp_path / "photo.png")[0]
    shown = dict(part.rsplit(" ", 1) for part in classes)
    assert set(shown) == set(found["probabilities"])
    for label, share in found["probabilities"].items():
        assert float(shown[label].rstrip("%")) / 100 == pytest.approx(share, abs=0.02)
    assert len((REPO / "examples" / "classify.py").read_text().splitlines()) <= 30


def test_what_cannot_be_exported_is_refused_in_words(
    adapted: AdaptResult,
    folder: Path,
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(OptionError, match="int8 needs some images"):
        export_onnx(adapted.model, adapted.preprocessing, tmp_path / "x.onnx", int8=True)
    with pytest.raises(DataError, match="holds no image"):
        read_examples(tmp_path, adapted.preprocessing)
    for arguments, message in (([], "exists: pass --overwrite"), (["--to", "tflite"], "must be one of onnx")):
        cli(str(folder), *arguments, code=1)
        assert message in capsys.readouterr().err
    before = exported.read_bytes()
    from hf_metaprune import export

    monkeypatch.setattr(export, "_torch_logits", lambda model, pixels: np.zeros((len(pixels), 3), np.float32))
    with pytest.raises(DataError, match="off PyTorch's: it is not written"):
        export_onnx(adapted.model, adapted.preprocessing, exported)
    assert exported.read_bytes() == before
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'hf-metaprune\[onnx\]'"):
        export_onnx(adapted.model, adapted.preprocessing, tmp_path / "x.onnx")

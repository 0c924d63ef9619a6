"""Export: the ONNX file computes what the model does, says what it needs, and runs without this library."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from PIL import Image

from hf_metaprune import MetaPruner
from hf_metaprune.cli.app import run
from hf_metaprune.config import TrainingOptions
from hf_metaprune.data.decoding import open_image
from hf_metaprune.data.preprocessing import Preprocessing
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import DataError, MissingPackageError, OptionError, StorageError
from hf_metaprune.export import PROGRAM, export_onnx, export_openvino
from hf_metaprune.export import onnx as onnx_export
from hf_metaprune.export.checking import example_pixels
from hf_metaprune.export.onnx import onnx_bytes
from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.result import AdaptResult
from hf_metaprune.training.loop import fine_tune
from tests.conftest import REPO


@pytest.fixture(scope="module")
def adapted(bank_folder: Path, task_data: TaskData) -> AdaptResult:
    return MetaPruner.from_hub(bank_folder).adapt(task_data.select((0, 2, 5)), steps=20, batch_size=16, neighbors=1)


@pytest.fixture(scope="module")
def folder(adapted: AdaptResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapted.save_pretrained(tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="module", autouse=True)
def translate_once() -> Iterator[None]:
    """Let torch translate each model once: it takes seconds, and most of these tests are about what comes after it."""
    translations: dict[str, bytes] = {}
    translate = onnx_export._translate

    def translate_or_remember(model: MetaPrunedForImageClassification, preprocessing: Preprocessing) -> onnx.ModelProto:
        digest = sha256(repr(preprocessing).encode() + model.config.to_json_string().encode())
        for name, values in model.state_dict().items():
            digest.update(name.encode() + values.numpy().tobytes())
        if digest.hexdigest() not in translations:
            translations[digest.hexdigest()] = translate(model, preprocessing).SerializeToString()
        return onnx.load_from_string(translations[digest.hexdigest()])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_export, "_translate", translate_or_remember)
        yield


def cli(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as error:
        run(["export", *arguments])
    assert error.value.code == code


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    cli(str(folder))
    return folder / "model.onnx"


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3])
def test_the_file_computes_the_same_for_any_batch(adapted: AdaptResult, exported: Path, batch: int) -> None:
    pixels = torch.randn(batch, 3, 32, 32)
    session = onnxruntime.InferenceSession(exported)
    logits = session.run(["logits"], {"pixel_values": pixels.numpy()})[0]
    assert np.abs(logits - adapted.model(pixels).logits.numpy()).max() <= 1e-4
    assert adapted.model.config.num_labels == logits.shape[1]


@pytest.mark.slow
def test_a_transformer_with_an_empty_branch_is_exported(vit_base: BaseModel, tmp_path: Path) -> None:
    sizes = vit_base.sizes
    mask = Mask({n: [] if n in ("blocks.0.attn", "blocks.1.mlp") else range(s // 2) for n, s in sizes.items()}, sizes)
    model = vit_base.slice(vit_base.config(mask, ["a", "b"]))
    export = export_onnx(model, vit_base.preprocessing, tmp_path / "model.onnx")
    assert export.difference <= 1e-4
    assert export.agreement == 1.0


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


@pytest.mark.slow
def test_int8_keeps_the_classes_of_a_transformer(vit_base: BaseModel, task_data: TaskData, tmp_path: Path) -> None:
    model = vit_base.whole(task_data.task.labels)
    fine_tune(
        model, task_data.train, TrainingOptions(steps=60, optimizer="adamw", lr=0.002, batch_size=24, eval_steps=())
    )
    small = export_onnx(model, vit_base.preprocessing, tmp_path / "small.onnx", images=task_data.train, int8=True)
    plain = export_onnx(model, vit_base.preprocessing, tmp_path / "plain.onnx", images=task_data.train)
    assert small.agreement >= 0.9
    assert small.size < plain.size
    assert model.training is False
    graph = onnx.load(small.path).graph  # who runs it may have an onnxruntime whose softmax in 8 bits is wrong
    made_by = {name: node for node in graph.node for name in node.output}
    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    assert softmaxes and "DequantizeLinear" not in {made_by[node.input[0]].op_type for node in softmaxes}


@pytest.mark.slow
def test_export_leaves_the_model_as_it_is(vit_base: BaseModel, tmp_path: Path) -> None:
    model = vit_base.whole(["a", "b"]).half().train()
    export_onnx(model, vit_base.preprocessing, tmp_path / "model.onnx")
    assert model.training
    assert model.dtype == torch.float16


@pytest.mark.parametrize(("crop_pct", "interpolation"), [(1.0, "bilinear"), (0.95, "bicubic"), (0.875, "bicubic")])
def test_the_example_sees_the_pixels_that_the_library_sees(
    vit_base: BaseModel, tmp_path: Path, crop_pct: float, interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the photo's shape and orientation; half a gray level apart where one of both rounds."""
    how = Preprocessing((3, 32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), interpolation, crop_pct)
    facts = {"labels": ["a", "b"], "preprocessing": how.to_config()}
    inputs: list[np.ndarray] = []

    class Session:
        def __init__(self, *_: object, **__: object) -> None: ...

        def get_modelmeta(self) -> SimpleNamespace:
            return SimpleNamespace(custom_metadata_map={key: json.dumps(value) for key, value in facts.items()})

        def run(self, _: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            inputs.append(feed["pixel_values"])
            return [np.zeros((1, 2), np.float32)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    rng, paths = np.random.default_rng(0), []
    for number in range(16):
        small = rng.integers(0, 255, (5, 4, 3), dtype=np.uint8)  # smooth pictures, as photos are
        image = Image.fromarray(small).resize(tuple(map(int, rng.integers(33, 200, 2))), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1], exif=exif)
    monkeypatch.setattr(sys, "argv", ["classify.py", "model.onnx", *map(str, paths)])
    runpy.run_path(str(PROGRAM))
    for path, pixels in zip(paths, inputs, strict=True):
        expected_pixels = how.normalize(how.to_uint8([open_image(path)])).numpy()
        assert np.abs(pixels - expected_pixels).max() * 0.25 * 255 <= 2.01, path


@pytest.mark.slow
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


@pytest.mark.parametrize("int8", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_example_needs_neither_this_library_nor_torch(
    adapted: AdaptResult, exported: Path, tmp_path: Path, task_data: TaskData, int8: bool
) -> None:
    """As on a Raspberry Pi: only onnxruntime, numpy and pillow can be imported."""
    if int8:  # of which onnxruntime leaves notes of its own in the metadata
        exported = tmp_path / "small.onnx"
        export_onnx(adapted.model, adapted.preprocessing, exported, images=task_data.train, int8=True)
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
    process = subprocess.run(
        [sys.executable, PROGRAM, exported, tmp_path / "photo.png"],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    path, *classes = process.stdout.strip().split("\t")
    assert path.endswith("photo.png")
    prediction = adapted.predict(tmp_path / "photo.png")[0]
    percentages = dict(part.rsplit(" ", 1) for part in classes)
    assert set(percentages) == set(prediction["probabilities"])
    for label, share in prediction["probabilities"].items():
        assert float(percentages[label].rstrip("%")) / 100 == pytest.approx(share, abs=0.25 if int8 else 0.02)
    assert len((PROGRAM).read_text().splitlines()) <= 30


@pytest.mark.slow
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
    for arguments, message in (([], "exists: pass --overwrite"), (["--to", "tflite"], "must be one of onnx, openvino")):
        cli(str(folder), *arguments, code=1)
        assert message in capsys.readouterr().err
    before = exported.read_bytes()
    from hf_metaprune.export import checking

    monkeypatch.setattr(checking, "torch_logits", lambda model, pixels: np.zeros((len(pixels), 3), np.float32))
    with pytest.raises(DataError, match="off PyTorch's: it is not written"):
        export_onnx(adapted.model, adapted.preprocessing, exported)
    assert exported.read_bytes() == before
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'hf-metaprune\[onnx\]'"):
        export_onnx(adapted.model, adapted.preprocessing, tmp_path / "x.onnx")


@pytest.mark.slow
@torch.no_grad()
def test_openvino_computes_the_same_and_knows_the_labels(adapted: AdaptResult, folder: Path) -> None:
    cli(str(folder), "--to", "openvino")
    core = openvino.Core()
    model = core.read_model(folder / "openvino" / "openvino_model.xml")
    assert json.loads(model.get_rt_info(["hf_metaprune", "labels"]).astype(str)) == ["cat", "truck", "teapot"]
    how = json.loads(model.get_rt_info(["hf_metaprune", "preprocessing"]).astype(str))
    assert how == adapted.preprocessing.to_config()
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in (1, 3):
        pixels = torch.randn(batch, 3, 32, 32)
        assert np.abs(compiled(pixels.numpy())[0] - adapted.model(pixels).logits.numpy()).max() <= 1e-4
    for file in (folder / "openvino").iterdir():
        assert not any(path.encode() in file.read_bytes() for path in (str(REPO), "site-packages", str(Path.home())))


@pytest.mark.slow
def test_openvino_takes_8_bits_and_transformers_too(vit_base: BaseModel, task_data: TaskData, tmp_path: Path) -> None:
    model = vit_base.whole(task_data.task.labels)
    fine_tune(
        model, task_data.train, TrainingOptions(steps=60, optimizer="adamw", lr=0.002, batch_size=24, eval_steps=())
    )
    plain = export_openvino(model, vit_base.preprocessing, tmp_path / "plain", images=task_data.train)
    small = export_openvino(model, vit_base.preprocessing, tmp_path / "small", images=task_data.train, int8=True)
    assert plain.difference <= 1e-4
    assert small.agreement >= 0.9
    weights = [(export.path / "openvino_model.bin").stat().st_size for export in (small, plain)]
    assert weights[0] < 0.5 * weights[1]


@pytest.mark.slow
def test_openvino_takes_8_bits_where_channels_are_put_at_their_places(
    adapted: AdaptResult, task_data: TaskData, tmp_path: Path
) -> None:
    """Scattered among zeros they came out wrong."""
    data = onnx_bytes(adapted.model, adapted.preprocessing, example_pixels(adapted.preprocessing, None, False), False)
    assert "ScatterND" not in {node.op_type for node in onnx.load_from_string(data).graph.node}
    small = export_openvino(adapted.model, adapted.preprocessing, tmp_path / "small", images=task_data.train, int8=True)
    assert small.agreement >= 0.9


@pytest.mark.slow
def test_openvino_that_fails_leaves_what_was_there(
    adapted: AdaptResult, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export_openvino(adapted.model, adapted.preprocessing, out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(StorageError, match="exists already"):
        export_openvino(adapted.model, adapted.preprocessing, out)
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"thesis\.txt"):
        export_openvino(adapted.model, adapted.preprocessing, out, overwrite=True)
    (out / "thesis.txt").unlink()
    from hf_metaprune.export import checking

    monkeypatch.setattr(checking, "torch_logits", lambda model, pixels: np.zeros((len(pixels), 3), np.float32))
    with pytest.raises(DataError, match="off PyTorch's: it is not written"):
        export_openvino(adapted.model, adapted.preprocessing, out, overwrite=True)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'hf-metaprune\[openvino\]'"):
        export_openvino(adapted.model, adapted.preprocessing, tmp_path / "x")

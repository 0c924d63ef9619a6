"""Models for devices without PyTorch: ONNX files that say their labels and preprocessing themselves."""

from __future__ import annotations

import copy
import json
import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .data import ImageSet, decode_images
from .errors import DataError, MissingPackageError, OptionError, reason
from .models.modeling import MetaPrunedForImageClassification
from .preprocess import Preprocessing
from .storage import write_bytes

TOLERANCE = 1e-4
INPUT, OUTPUT = "pixel_values", "logits"
CALIBRATION = 200
"""Images that int8 ranges are measured on, at most."""
BATCH = 16
QUANTISED = ("Conv", "MatMul", "Gemm")
"""What is stored in 8 bits; norms and softmax lose too much, and weigh nothing."""
LEAST_AGREEMENT = 0.9


@dataclass(frozen=True)
class Exported:
    """An ONNX file: where it is, how large, and how near its outputs are to PyTorch's.

    `difference` is the largest of a logit; `agreement` the share of images that get the same class.
    """

    path: Path
    size: int
    difference: float
    agreement: float


class _Logits(nn.Module):
    """The model with one tensor as its output."""

    def __init__(self, model: MetaPrunedForImageClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).logits


def export_onnx(
    model: MetaPrunedForImageClassification,
    preprocessing: Preprocessing,
    path: str | Path,
    *,
    images: ImageSet | None = None,
    int8: bool = False,
) -> Exported:
    """Write a model as an ONNX file with a dynamic batch, and check it against PyTorch with onnxruntime.

    The file's metadata has ``labels`` (JSON list) and ``preprocessing`` (JSON, as timm's ``pretrained_cfg`` calls it).
    Input ``pixel_values`` float32 (batch, 3, height, width), normalised; output ``logits`` float32 (batch, labels).

    Args:
        images: real ones to compare on, and to measure int8 ranges on; noise is compared on if left out.
        int8: store weights and activations in 8 bits, by onnxruntime's static quantization.

    Raises:
        MissingPackageError: onnx or onnxruntime is not installed.
        OptionError: `int8` without images.
        DataError: torch cannot translate it; or the file computes something else than the model (logits more than 1e-4
            off, in units of the largest if that is above 1; in 8 bits: another class for more than a tenth of the
            images), and is not written.
        StorageError: it cannot be written.
    """
    _check_packages()
    if int8 and (images is None or not len(images)):
        raise OptionError("int8 needs some images like those that the model will see, to measure ranges on")
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()  # the caller's stays as it is, and where it is
    made = _with_facts(_translate(model, preprocessing), model, preprocessing)
    pixels = _examples(preprocessing, images)
    if int8:
        made = _quantised(made, pixels)
    found, wanted = _run(made, pixels), _torch_logits(model, pixels)
    difference = float(np.abs(found - wanted).max())
    agreement = float((found.argmax(1) == wanted.argmax(1)).mean())
    if not int8 and difference > TOLERANCE * max(1.0, float(np.abs(wanted).max())):
        raise DataError(f"the ONNX file computes logits that are {difference:.2g} off PyTorch's: it is not written")
    if agreement < LEAST_AGREEMENT:
        raise DataError(
            f"in 8 bits only {agreement:.0%} of the images get the same class as before: it is not written; export "
            "without int8, or give images that are more like those it will see"
        )
    path = Path(path).expanduser()
    write_bytes(path, made)
    return Exported(path, len(made), difference, agreement)


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("ONNX needs three packages more: `pip install 'hf-metaprune[onnx]'`") from error


def _translate(model: MetaPrunedForImageClassification, preprocessing: Preprocessing) -> Any:
    """The model as an onnx ModelProto."""
    example = torch.zeros(2, *preprocessing.input_size)
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of exporters, about themselves
        try:
            program: Any = torch.onnx.export(
                _Logits(model).eval(),
                (example,),
                dynamo=True,
                verbose=False,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                input_names=[INPUT],
                output_names=[OUTPUT],
            )
        except (RuntimeError, torch.onnx.OnnxExporterError) as error:
            raise DataError(f"torch {torch.__version__} cannot translate the model: {reason(error)}") from error
        return program.model_proto


def _with_facts(proto: Any, model: MetaPrunedForImageClassification, preprocessing: Preprocessing) -> bytes:
    """The file's bytes, with what a reader needs to know in its metadata, and without paths of this machine."""
    import onnx

    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
    del proto.metadata_props[:]
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        del part.metadata_props[:]  # names of our modules and stack traces, with paths of this machine
        part.doc_string = ""
    facts = {"labels": labels, "preprocessing": preprocessing.to_config()}
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in facts.items()})
    return proto.SerializeToString()


def _examples(preprocessing: Preprocessing, images: ImageSet | None) -> np.ndarray:
    if images is not None and len(images):
        some = images.stratified(CALIBRATION, 0)
        return preprocessing.normalise(some.images).numpy()
    return torch.randn(4, *preprocessing.input_size, generator=torch.Generator().manual_seed(0)).numpy()


def _session(made: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])


def _run(made: bytes, pixels: np.ndarray) -> np.ndarray:
    session = _session(made)
    parts = [pixels[:1], *(pixels[i : i + BATCH] for i in range(1, len(pixels), BATCH))]  # the batch is dynamic
    return np.concatenate([session.run([OUTPUT], {INPUT: part})[0] for part in parts])


@torch.inference_mode()
def _torch_logits(model: MetaPrunedForImageClassification, pixels: np.ndarray) -> np.ndarray:
    return torch.cat([model(part).logits for part in torch.from_numpy(pixels).split(BATCH)]).numpy()


def _quantised(made: bytes, pixels: np.ndarray) -> bytes:
    """The file in 8 bits: weights by channel, activations by the ranges that the images show."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(pixels)

        def get_next(self) -> dict[str, np.ndarray] | None:
            one = next(self.rest, None)
            return None if one is None else {INPUT: one[None]}

    logging.getLogger("onnxruntime.quantization").setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(3)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, ready, small = (Path(name) / file for file in ("plain.onnx", "ready.onnx", "small.onnx"))
        plain.write_bytes(made)
        quant_pre_process(str(plain), str(ready))
        quantize_static(
            str(ready), str(small), Images(), quant_format=QuantFormat.QDQ, per_channel=True,
            weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8, op_types_to_quantize=list(QUANTISED),
        )  # fmt: skip
        return small.read_bytes()


def read_examples(folder: Path, preprocessing: Preprocessing, progress: bool = False) -> ImageSet:
    """Up to `CALIBRATION` of the images anywhere below a folder, without labels.

    Raises:
        DataError: there is none, or more than 1% cannot be read.
    """
    from .sources import image_files

    files = image_files(folder)[0] if folder.is_dir() else [folder]
    if not files:
        raise DataError(f"{folder} holds no image, such as .jpg or .png")
    rng = np.random.default_rng(0)
    files = [files[i] for i in sorted(rng.choice(len(files), min(len(files), CALIBRATION), replace=False))]
    targets = np.zeros(len(files), dtype=np.int64)
    return decode_images(lambda i: files[i], targets, preprocessing, lambda i: str(files[i]), progress)

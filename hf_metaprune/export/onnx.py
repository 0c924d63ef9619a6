"""ONNX files that say their labels and preprocessing themselves."""

from __future__ import annotations

import copy
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.images import ImageSet
from ..data.preprocessing import Preprocessing
from ..errors import DataError, MissingPackageError, reason
from ..files.storage import write_bytes
from ..models.modeling import MetaPrunedForImageClassification
from .checking import INPUT, OUTPUT, Exported, check, example_pixels, in_batches

QUANTIZED = ("Conv", "MatMul", "Gemm")
"""What is stored in 8 bits, if it has weights; norms and softmax lose too much, and weigh nothing."""


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
    Input ``pixel_values`` float32 (batch, 3, height, width), normalized; output ``logits`` float32 (batch, labels).

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
    check_packages()
    pixels = example_pixels(preprocessing, images, int8)
    made = onnx_bytes(model, preprocessing, pixels, int8)
    difference, agreement = check(_runner(made), model, pixels, int8)
    path = Path(path).expanduser()
    write_bytes(path, made)
    return Exported(path, len(made), difference, agreement)


def onnx_bytes(
    model: MetaPrunedForImageClassification, preprocessing: Preprocessing, pixels: np.ndarray, int8: bool
) -> bytes:
    """The file's content, unchecked; `pixels`, float32 (n, 3, height, width), are what int8 ranges are measured on."""
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()  # the caller's stays as it is, and where it is
    made = _with_facts(_translate(model, preprocessing), model, preprocessing)
    return _quantized(made, pixels) if int8 else made


def check_packages() -> None:
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


def facts(model: MetaPrunedForImageClassification, preprocessing: Preprocessing) -> dict[str, Any]:
    """What a reader of the file needs to know."""
    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
    return {"labels": labels, "preprocessing": preprocessing.to_config()}


def _with_facts(proto: Any, model: MetaPrunedForImageClassification, preprocessing: Preprocessing) -> bytes:
    """The file's bytes, with what a reader needs to know in its metadata, and without paths of this machine."""
    import onnx

    del proto.metadata_props[:]
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        del part.metadata_props[:]  # names of our modules and stack traces, with paths of this machine
        part.doc_string = ""
    found = facts(model, preprocessing)
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in found.items()})
    return proto.SerializeToString()


def _runner(made: bytes) -> Any:
    """Logits of pixels, by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    return in_batches(lambda part: session.run([OUTPUT], {INPUT: part})[0])


def _quantized(made: bytes, pixels: np.ndarray) -> bytes:
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
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)  # which fails on files of torch 2.10
        quantize_static(
            str(ready), str(small), Images(), quant_format=QuantFormat.QDQ, per_channel=True,
            weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8, op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=_without_weights(ready),
        )  # fmt: skip
        return small.read_bytes()


def _without_weights(file: Path) -> list[str]:
    """The products of two activations, which attention has: in 8 bits no byte of the file is saved by them.

    With both of them in 8 bits the softmax between them is, too, and onnxruntime computes that wrongly up to 1.31.
    """
    import onnx

    graph = onnx.load(file).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and weights.isdisjoint(node.input)]

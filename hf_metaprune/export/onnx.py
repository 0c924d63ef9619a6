"""ONNX files, with the labels and the preprocessing in their metadata."""

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
from ..files.names import user_path
from ..files.storage import write_bytes
from ..models.modeling import MetaPrunedForImageClassification
from .checking import INPUT, OUTPUT, Exported, check_logits, example_pixels, in_batches

QUANTIZED_OPERATORS = ("Conv", "MatMul", "Gemm")
"""Operators that are stored in 8 bits if they have weights; norms and softmax lose too much accuracy, and are small."""


class _Logits(nn.Module):
    """A model with one tensor as its output."""

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
        model: the model; it is not changed.
        preprocessing: how images are prepared for the model.
        path: file to write.
        images: real images to compare on, and to measure int8 ranges on; without them, noise is compared on.
        int8: store weights and activations in 8 bits, by onnxruntime's static quantization.

    Raises:
        MissingPackageError: onnx, onnxruntime or onnxscript is not installed.
        OptionError: `int8` without images.
        DataError: torch cannot translate the model, or the file computes something else. It is not written then. The
            limits are `TOLERANCE` for logits and `MIN_AGREEMENT` for classes.
        StorageError: the file cannot be written.
    """
    check_packages()
    pixels = example_pixels(preprocessing, images, int8)
    content = onnx_bytes(model, preprocessing, pixels, int8)
    difference, agreement = check_logits(_make_runner(content), model, pixels, int8)
    path = user_path(path)
    write_bytes(path, content)
    return Exported(path, len(content), difference, agreement)


def onnx_bytes(
    model: MetaPrunedForImageClassification, preprocessing: Preprocessing, pixels: np.ndarray, int8: bool
) -> bytes:
    """Return the content of the file, unchecked.

    Args:
        model: the model; it is not changed.
        preprocessing: how images are prepared for the model.
        pixels: normalized pixels to measure int8 ranges on, float32 (n, 3, height, width).
        int8: store weights and activations in 8 bits.

    Raises:
        DataError: torch cannot translate the model.
    """
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()  # the caller's model stays on its device
    content = _add_metadata(_translate(model, preprocessing), model, preprocessing)
    return _quantize(content, pixels) if int8 else content


def check_packages() -> None:
    """Refuse to export without the packages for it.

    Raises:
        MissingPackageError: onnx, onnxruntime or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("ONNX needs three more packages: `pip install 'hf-metaprune[onnx]'`") from error


def _translate(model: MetaPrunedForImageClassification, preprocessing: Preprocessing) -> Any:
    """Translate a model to an onnx ModelProto."""
    example = torch.zeros(2, *preprocessing.input_size)
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # exporters warn about their own code
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


def file_metadata(model: MetaPrunedForImageClassification, preprocessing: Preprocessing) -> dict[str, Any]:
    """Return what a reader of the file needs to know: ``labels`` and ``preprocessing``."""
    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
    return {"labels": labels, "preprocessing": preprocessing.to_config()}


def _add_metadata(proto: Any, model: MetaPrunedForImageClassification, preprocessing: Preprocessing) -> bytes:
    """Return the file's content, with `file_metadata`, and without paths of this machine."""
    import onnx

    del proto.metadata_props[:]
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        del part.metadata_props[:]  # stack traces, with paths of this machine
        part.doc_string = ""
    metadata = file_metadata(model, preprocessing)
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in metadata.items()})
    return proto.SerializeToString()


def _make_runner(content: bytes) -> Any:
    """Return a runner of a file by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return in_batches(lambda part: session.run([OUTPUT], {INPUT: part})[0])


def _quantize(content: bytes, pixels: np.ndarray) -> bytes:
    """Return a file in 8 bits: weights are scaled per channel, activations by their ranges on the images."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(pixels)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {INPUT: image[None]}

    logging.getLogger("onnxruntime.quantization").setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(3)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original, prepared_file, small = (
            Path(name) / file for file in ("original.onnx", "prepared.onnx", "small.onnx")
        )
        original.write_bytes(content)
        quant_pre_process(
            str(original), str(prepared_file), skip_symbolic_shape=True
        )  # it fails on files of torch 2.10
        quantize_static(
            str(prepared_file), str(small), Images(), quant_format=QuantFormat.QDQ, per_channel=True,
            weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
            op_types_to_quantize=list(QUANTIZED_OPERATORS), nodes_to_exclude=_weightless_products(prepared_file),
        )  # fmt: skip
        return small.read_bytes()


def _weightless_products(file: Path) -> list[str]:
    """Return the names of the operators that multiply two activations, as attention does: 8 bits save no byte there.

    If both products of an attention were in 8 bits, the softmax between them would be, too. onnxruntime computes such a
    softmax wrongly up to version 1.31.
    """
    import onnx

    graph = onnx.load(file).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and weights.isdisjoint(node.input)]

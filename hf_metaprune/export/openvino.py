"""OpenVINO's format, for Intel's processors, graphics and neural units; it is made from the ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..data.images import ImageSet
from ..data.preprocessing import Preprocessing
from ..errors import MissingPackageError
from ..files.names import user_path
from ..files.storage import new_folder
from ..models.modeling import MetaPrunedForImageClassification
from .checking import Exported, check_logits, example_pixels, in_batches
from .onnx import check_packages, file_metadata, onnx_bytes

MODEL_FILE = "openvino_model.xml"
"""Name of the file, as in optimum-intel; its weights are beside it, in ``openvino_model.bin``."""


def export_openvino(
    model: MetaPrunedForImageClassification,
    preprocessing: Preprocessing,
    path: str | Path,
    *,
    images: ImageSet | None = None,
    int8: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write a model as a folder with OpenVINO's two files, and check it against PyTorch with OpenVINO on the CPU.

    Input, output and checks are those of `export_onnx`. The labels and the preprocessing are in the runtime info under
    ``hf_metaprune``. The check runs in float32. By default OpenVINO computes in bfloat16 or float16 on devices that are
    faster at it, and logits are some hundredths off then.

    Args:
        model: the model; it is not changed.
        preprocessing: how images are prepared for the model.
        path: folder to write.
        images: real images to compare on, and to measure int8 ranges on; without them, noise is compared on.
        int8: store weights and activations in 8 bits.
        overwrite: replace a folder that holds nothing else than these two files.

    Raises:
        MissingPackageError: openvino, or a package that ONNX needs, is not installed.
        OptionError, DataError: as for `export_onnx`.
        StorageError: the folder exists, or cannot be written.
    """
    check_packages()
    try:
        import openvino
    except ImportError as error:
        raise MissingPackageError("OpenVINO needs one more package: `pip install 'hf-metaprune[openvino]'`") from error
    path = user_path(path)
    pixels = example_pixels(preprocessing, images, int8)
    with new_folder(path, overwrite=overwrite and (MODEL_FILE, Path(MODEL_FILE).with_suffix(".bin").name)) as work:
        openvino_model = openvino.Core().read_model(onnx_bytes(model, preprocessing, pixels, int8))
        for key, value in file_metadata(model, preprocessing).items():
            openvino_model.set_rt_info(json.dumps(value), ["hf_metaprune", key])
        openvino.save_model(openvino_model, work / MODEL_FILE, compress_to_fp16=False)
        difference, agreement = check_logits(_make_runner(openvino.Core(), work / MODEL_FILE), model, pixels, int8)
        size = sum(file.stat().st_size for file in work.iterdir())
    return Exported(path, size, difference, agreement)


def _make_runner(core: Any, file: Path) -> Any:
    """Return a runner of a file by OpenVINO on the CPU."""
    compiled_model = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return in_batches(lambda part: compiled_model(part)[0])

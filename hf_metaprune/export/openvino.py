"""OpenVINO's format, for Intel's processors, graphics and neural units: made of the ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..data.images import ImageSet
from ..data.preprocessing import Preprocessing
from ..errors import MissingPackageError
from ..files.storage import new_folder
from ..models.modeling import MetaPrunedForImageClassification
from .checking import Exported, check, example_pixels, in_batches
from .onnx import check_packages, facts, onnx_bytes

FILE = "openvino_model.xml"
"""As optimum-intel calls it; the weights are beside it, in ``openvino_model.bin``."""


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

    Input, output and checks are those of `export_onnx`; the labels and the preprocessing are in the runtime info under
    ``hf_metaprune``. It is compared in float32: by default OpenVINO computes in bfloat16 or float16 where a device is
    faster at it, and logits are some hundredths off then.

    Raises:
        MissingPackageError: openvino, or what ONNX needs, is not installed.
        OptionError, DataError: as for `export_onnx`.
        StorageError: the folder exists, or cannot be written.
    """
    check_packages()
    try:
        import openvino
    except ImportError as error:
        raise MissingPackageError("OpenVINO needs a package more: `pip install 'hf-metaprune[openvino]'`") from error
    path = Path(path).expanduser()
    pixels = example_pixels(preprocessing, images, int8)
    with new_folder(path, overwrite=overwrite and (FILE, Path(FILE).with_suffix(".bin").name)) as work:
        made = openvino.Core().read_model(onnx_bytes(model, preprocessing, pixels, int8))
        for key, value in facts(model, preprocessing).items():
            made.set_rt_info(json.dumps(value), ["hf_metaprune", key])
        openvino.save_model(made, work / FILE, compress_to_fp16=False)
        difference, agreement = check(_runner(openvino.Core(), work / FILE), model, pixels, int8)
        size = sum(file.stat().st_size for file in work.iterdir())
    return Exported(path, size, difference, agreement)


def _runner(core: Any, file: Path) -> Any:
    """Logits of pixels, by OpenVINO on the CPU."""
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return in_batches(lambda part: compiled(part)[0])

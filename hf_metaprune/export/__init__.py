"""Models for devices without PyTorch, one file for each format."""

from .checking import Exported
from .examples import read_examples
from .onnx import export_onnx
from .openvino import export_openvino

__all__ = ["Exported", "export_onnx", "export_openvino", "read_examples"]

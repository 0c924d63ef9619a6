"""Models for devices without PyTorch, one file for each format."""

from pathlib import Path

from .checking import Exported
from .examples import read_examples
from .onnx import export_onnx
from .openvino import export_openvino

PROGRAM = Path(__file__).with_name("classify.py")
"""A program for a device, that classifies photos with an ONNX file; it needs nothing of this package."""

__all__ = ["PROGRAM", "Exported", "export_onnx", "export_openvino", "read_examples"]

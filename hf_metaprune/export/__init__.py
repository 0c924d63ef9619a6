"""Models for devices without PyTorch, one module per format."""

from pathlib import Path

from .checking import MAX_CALIBRATION_IMAGES, Exported
from .onnx import export_onnx
from .openvino import export_openvino

PROGRAM = Path(__file__).with_name("classify.py")
"""A program that classifies photos with an ONNX file on a device; it does not need this package."""

__all__ = ["MAX_CALIBRATION_IMAGES", "PROGRAM", "Exported", "export_onnx", "export_openvino"]

"""Shared by all formats: images to compare on, and the check that a file computes what the model computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..data.images import ImageSet
from ..data.preprocessing import Preprocessing
from ..errors import DataError, OptionError
from ..models.modeling import MetaPrunedForImageClassification

Runner = Callable[[np.ndarray], np.ndarray]
"""A function from normalized pixels, float32 (n, 3, height, width), to logits, float32 (n, labels)."""

TOLERANCE = 1e-4
"""Largest difference of a logit, in units of the largest logit if that is above 1."""
INPUT, OUTPUT = "pixel_values", "logits"
"""Names of a file's input and output."""
MAX_CALIBRATION_IMAGES = 200
"""Most images on which int8 ranges are measured."""
BATCH = 16
"""Images per batch."""
MIN_AGREEMENT = 0.9
"""Smallest share of images that must get the same class as from PyTorch."""


@dataclass(frozen=True)
class Exported:
    """An exported model, and how near its outputs are to PyTorch's."""

    path: Path
    """The file or folder."""
    size: int
    """Size in bytes."""
    difference: float
    """Largest absolute difference of a logit."""
    agreement: float
    """Share of images that get the same class, in [0, 1]."""


def example_pixels(preprocessing: Preprocessing, images: ImageSet | None, int8: bool) -> np.ndarray:
    """Return the pixels to compare on: those of some images, or noise.

    Args:
        preprocessing: how images are normalized.
        images: real images, if there are any.
        int8: whether the pixels also serve to measure int8 ranges, so that noise will not do.

    Returns:
        Normalized pixels, float32 (n, 3, height, width).

    Raises:
        OptionError: `int8` without images.
    """
    if images is not None and len(images):
        return preprocessing.normalize(images.stratified(MAX_CALIBRATION_IMAGES, 0).images).numpy()
    if int8:
        raise OptionError("int8 needs some images like those that the model will see, to measure ranges on")
    return torch.randn(4, *preprocessing.input_size, generator=torch.Generator().manual_seed(0)).numpy()


def in_batches(run: Runner) -> Runner:
    """Return a runner for any number of images, which runs batches of different sizes to test the dynamic batch."""

    def run_all(pixels: np.ndarray) -> np.ndarray:
        parts = [pixels[:1], *(pixels[i : i + BATCH] for i in range(1, len(pixels), BATCH))]
        return np.concatenate([run(part) for part in parts])

    return run_all


def check_logits(
    run: Runner, model: MetaPrunedForImageClassification, pixels: np.ndarray, int8: bool = False
) -> tuple[float, float]:
    """Check that a file computes what the model computes.

    Args:
        run: a runner of the file.
        model: the model that was exported.
        pixels: normalized pixels, float32 (n, 3, height, width).
        int8: whether the file computes in 8 bits, so that only the classes are compared.

    Returns:
        The largest absolute difference of a logit, and the share of images that get the same class.

    Raises:
        DataError: the outputs differ too much, and the file must not be written.
    """
    logits, expected = run(pixels), torch_logits(model, pixels)
    difference = float(np.abs(logits - expected).max())
    agreement = float((logits.argmax(1) == expected.argmax(1)).mean())
    if not int8 and not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise DataError(f"the file computes logits that are {difference:.2g} off PyTorch's: it is not written")
    if agreement < MIN_AGREEMENT:
        message = f"only {agreement:.0%} of the images get the same class as before: it is not written"
        advice = "; export without int8, or give images that are more like those it will see"
        raise DataError(f"in 8 bits {message}{advice}" if int8 else message)
    return difference, agreement


@torch.inference_mode()
def torch_logits(model: MetaPrunedForImageClassification, pixels: np.ndarray) -> np.ndarray:
    """Return the logits that PyTorch computes on the CPU, float32 (n, labels)."""
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    return torch.cat([model(part).logits for part in torch.from_numpy(pixels).split(BATCH)]).numpy()

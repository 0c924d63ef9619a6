"""What all formats have in common: images to compare on, and whether a file computes what the model does."""

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
"""From normalized pixels float32 (n, 3, height, width) to logits (n, labels)."""

TOLERANCE = 1e-4
INPUT, OUTPUT = "pixel_values", "logits"
CALIBRATION = 200
"""Images that int8 ranges are measured on, at most."""
BATCH = 16
LEAST_AGREEMENT = 0.9


@dataclass(frozen=True)
class Exported:
    """An exported model: where it is, how large, and how near its outputs are to PyTorch's.

    `difference` is the largest of a logit; `agreement` the share of images that get the same class.
    """

    path: Path
    size: int
    difference: float
    agreement: float


def example_pixels(preprocessing: Preprocessing, images: ImageSet | None, int8: bool) -> np.ndarray:
    """Normalized pixels of some images, or noise: float32 (n, 3, height, width).

    Raises:
        OptionError: `int8` without images.
    """
    if images is not None and len(images):
        return preprocessing.normalize(images.stratified(CALIBRATION, 0).images).numpy()
    if int8:
        raise OptionError("int8 needs some images like those that the model will see, to measure ranges on")
    return torch.randn(4, *preprocessing.input_size, generator=torch.Generator().manual_seed(0)).numpy()


def in_batches(run: Runner) -> Runner:
    """The same for any number of images, in batches of different sizes: the batch is dynamic."""

    def run_all(pixels: np.ndarray) -> np.ndarray:
        parts = [pixels[:1], *(pixels[i : i + BATCH] for i in range(1, len(pixels), BATCH))]
        return np.concatenate([run(part) for part in parts])

    return run_all


def check(
    run: Runner, model: MetaPrunedForImageClassification, pixels: np.ndarray, int8: bool = False
) -> tuple[float, float]:
    """By how much a file's logits are off PyTorch's at most, and the share of images that get the same class.

    Raises:
        DataError: the file is not to be written: it computes something else.
    """
    found, wanted = run(pixels), torch_logits(model, pixels)
    difference = float(np.abs(found - wanted).max())
    agreement = float((found.argmax(1) == wanted.argmax(1)).mean())
    if not int8 and not difference <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
        raise DataError(f"the file computes logits that are {difference:.2g} off PyTorch's: it is not written")
    if agreement < LEAST_AGREEMENT:
        said = f"only {agreement:.0%} of the images get the same class as before: it is not written"
        advice = "; export without int8, or give images that are more like those it will see"
        raise DataError(f"in 8 bits {said}{advice}" if int8 else said)
    return difference, agreement


@torch.inference_mode()
def torch_logits(model: MetaPrunedForImageClassification, pixels: np.ndarray) -> np.ndarray:
    """What PyTorch computes, on the CPU in float32."""
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    return torch.cat([model(part).logits for part in torch.from_numpy(pixels).split(BATCH)]).numpy()

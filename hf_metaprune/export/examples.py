"""Images to compare an exported model on, and to measure int8 ranges on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data.images import ImageSet, decode_images
from ..data.preprocessing import Preprocessing
from ..errors import DataError
from .checking import MAX_CALIBRATION_IMAGES


def read_examples(folder: Path, preprocessing: Preprocessing, progress: bool = False) -> ImageSet:
    """Read up to `MAX_CALIBRATION_IMAGES` images below a folder, or all images of a labeled data set in parquet.

    Args:
        folder: a folder of images at any depth, an image, or parquet files as `read_task_data` accepts them.
        preprocessing: how images are resized and cropped.
        progress: show progress bars.

    Returns:
        The images; those of a folder have no labels, and their targets are all 0.

    Raises:
        DataError: there is no image, or more than 1% of the images cannot be read.
    """
    from ..data.loading import read_task_data
    from ..data.sources import image_files

    if not folder.exists():
        raise DataError(f"{folder}: there is no such file or folder")
    files = image_files(folder)[0] if folder.is_dir() else [folder]
    tables = [folder] if folder.suffix == ".parquet" else list(folder.rglob("*.parquet"))
    if tables and len(tables) >= len(files):  # fewer parquet files than photos are there by mistake
        return read_task_data(folder, preprocessing, evaluation_share=0, progress=progress).train
    if not files:
        raise DataError(f"{folder} holds no image, such as .jpg or .png")
    rng = np.random.default_rng(0)
    files = [files[i] for i in sorted(rng.choice(len(files), min(len(files), MAX_CALIBRATION_IMAGES), replace=False))]
    targets = np.zeros(len(files), dtype=np.int64)
    return decode_images(lambda i: files[i], targets, preprocessing, lambda i: str(files[i]), progress)

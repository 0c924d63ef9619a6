"""Images to compare an exported model on, and to measure int8 ranges on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data.images import ImageSet, decode_images
from ..data.preprocessing import Preprocessing
from ..errors import DataError
from .checking import CALIBRATION


def read_examples(folder: Path, preprocessing: Preprocessing, progress: bool = False) -> ImageSet:
    """Up to `CALIBRATION` of the images anywhere below a folder; or those of a labeled data set in parquet.

    Raises:
        DataError: there is none, or more than 1% cannot be read.
    """
    from ..data.loading import read_task_data
    from ..data.sources import image_files

    if not folder.exists():
        raise DataError(f"{folder}: there is no such file or folder")
    files = image_files(folder)[0] if folder.is_dir() else [folder]
    tables = [folder] if folder.suffix == ".parquet" else list(folder.rglob("*.parquet"))
    if tables and len(tables) >= len(files):  # else one of them strayed among photos
        return read_task_data(folder, preprocessing, evaluation_share=0, progress=progress).train
    if not files:
        raise DataError(f"{folder} holds no image, such as .jpg or .png")
    rng = np.random.default_rng(0)
    files = [files[i] for i in sorted(rng.choice(len(files), min(len(files), CALIBRATION), replace=False))]
    targets = np.zeros(len(files), dtype=np.int64)
    return decode_images(lambda i: files[i], targets, preprocessing, lambda i: str(files[i]), progress)

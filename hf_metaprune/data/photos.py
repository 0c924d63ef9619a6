"""Photos without labels: from a folder, parquet, a data set or a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files.names import user_path
from .folders import image_files
from .images import ImageSet, decode_images
from .preprocessing import Preprocessing
from .sources import IMAGE_NAMES, check_place, image_column_only, image_folders, load_source, pick_column

NO_CLASS = -1
"""The target of a photo without a label."""


def read_photos(
    source: Any, preprocessing: Preprocessing, *, limit: int | None = None, progress: bool = False
) -> ImageSet:
    """Read and decode photos, without their labels if they have any.

    Args:
        source: a folder with photos anywhere below it, a photo, parquet files or a folder of them, a
            ``datasets.Dataset``, or a list of images in any form that `open_image` reads.
        preprocessing: how images are resized and cropped; that of the base model.
        limit: most photos; more are drawn at random.
        progress: show a progress bar.

    Returns:
        The photos, whose targets are all `NO_CLASS`.

    Raises:
        DataError: there is no photo, the source is not understood, or more than 1% of the photos are unreadable.
        OptionError: `source` is empty, or too long for a path.

    Example:
        >>> from PIL import Image
        >>> photos = read_photos([Image.new("RGB", (64, 64), "red")], Preprocessing(input_size=(3, 32, 32)))
        >>> photos.images.shape, photos.targets.tolist()
        (torch.Size([1, 3, 32, 32]), [-1])
    """
    import datasets

    fetch: Callable[[int], Any]
    names: Sequence[str] | None = None
    if isinstance(source, (str, Path)):
        path = user_path(source)
        if not path.exists():
            raise DataError(f"{source}: there is no such file or folder")
        files = image_files(path)[0] if path.is_dir() else [path]
        tables = [path] if path.suffix == ".parquet" else list(path.rglob("*.parquet"))
        is_saved = any((path / name).exists() for name in ("dataset_info.json", "dataset_dict.json"))
        if is_saved or (tables and len(tables) >= len(files)):  # fewer parquet files than photos are there by mistake
            loaded = load_source(path)[0]
            rows = next(iter(loaded.values())) if isinstance(loaded, dict) else loaded
            fetch, count = _from_rows(rows, image_folders(path))
        else:
            names = [str(file.relative_to(path)) if path.is_dir() else file.name for file in files]
            fetch, count = files.__getitem__, len(files)
        where = str(source)
    elif isinstance(source, datasets.Dataset):
        (fetch, count), where = _from_rows(source, None), "the data set"
    elif isinstance(source, (list, tuple)):
        fetch, count, where = source.__getitem__, len(source), "the list"
    else:
        raise DataError(f"a {type(source).__name__} is no source of photos: give a folder, a data set or a list")
    if not count:
        raise DataError(f"{where} holds no image, such as .jpg or .png")
    chosen = np.arange(count)
    if limit is not None and limit < count:
        chosen = np.sort(np.random.default_rng(0).choice(count, limit, replace=False))
    targets = np.full(len(chosen), NO_CLASS, dtype=np.int64)
    return decode_images(
        lambda i: fetch(int(chosen[i])),
        targets,
        preprocessing,
        lambda i: names[chosen[i]] if names else f"photo {chosen[i]}",
        progress,
    )


def _from_rows(rows: Any, folders: Sequence[Path] | None) -> tuple[Callable[[int], Any], int]:
    """Return a function that gives the image of each row of a ``datasets.Dataset``, and the number of rows.

    Args:
        rows: the rows.
        folders: folders that may hold images which the rows name by their paths; None: any folder.
    """
    import datasets

    is_image = {name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)}
    column = pick_column("image", None, rows.features, is_image, IMAGE_NAMES)
    rows = image_column_only(rows, column)

    def fetch(i: int) -> Any:
        value = rows[i][column]
        return value if folders is None else check_place(value, folders)

    return fetch, len(rows)

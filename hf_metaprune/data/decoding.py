"""Decoding one image, which may be anybody's, to upright RGB."""

from __future__ import annotations

import contextlib
import io
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image

from .encoded import FORMATS, MAX_PIXELS, opened_image

MAX_ASPECT = 50  # resizing the shorter side of anything longer would ask for too much memory
THIN_ASPECT, MAX_THIN_PIXELS = 10, 16_000_000
"""Most pixels after its reduction of an image that is so many times as long as wide, which is reduced little."""
LARGE_PIXELS, STRIPS_FROM = 16_000_000, 4_000_000
"""Pixels from which on an image is decoded alone, and from which on it is converted and reduced in strips."""
STRIP_PIXELS = 2_000_000
COPIES = {"WEBP": 4}
"""Copies of all pixels that decoders need, if more than one."""
WIDE_TO_BYTE = (np.arange(1 << 16) / 257.0).round().astype(np.uint8)
"""The byte for each number of 16 bits."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by the orientation in its EXIF data."""


class LargeImageError(ValueError):
    """An image takes more memory than the caller wants to take at a time."""


def open_image(
    value: Any,
    min_side: int = 0,
    *,
    accept_large: bool = True,
    formats: Sequence[str] = tuple(FORMATS),
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Return an upright RGB image.

    An image whose EXIF data is damaged is not turned.

    Args:
        value: a path, encoded bytes, a PIL image, or an array or tensor of shape HWC, CHW or HW. Floats lie in [0, 1].
            Integers lie in [0, 255], or are 16 bits wide and use their full range.
        min_side: shortest side that the caller needs, in pixels. A JPEG, or an image of more than `STRIPS_FROM` pixels,
            may be decoded at reduced size, but never below twice this.
        accept_large: whether to decode an encoded image that takes much memory.
        formats: the formats of encoded images that are accepted, of `encoded.FORMATS`.
        max_pixels: most pixels of an encoded image.

    Raises:
        LargeImageError: it takes much memory, and is not accepted.
        OSError, ValueError, TypeError: the image cannot be read, or has more than `max_pixels`.
    """
    if isinstance(value, dict) and ("bytes" in value or "path" in value):
        value = value["bytes"] if value.get("bytes") is not None else value["path"]
    if isinstance(value, Image.Image):
        return _upright_rgb(value, min_side, _stated_orientation(value))
    if torch.is_tensor(value) or isinstance(value, np.ndarray):
        return _from_array(value).convert("RGB")
    if isinstance(value, (bytes, bytearray)):
        value = io.BytesIO(value)
    if not isinstance(value, (str, Path)) and not hasattr(value, "read"):
        raise TypeError(f"a {type(value).__name__} is not an image")
    if isinstance(value, (str, Path)) and not stat.S_ISREG(Path(value).stat().st_mode):  # a pipe would never end
        raise ValueError("no regular file")
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(value, "rb")) if isinstance(value, (str, Path)) else value
        image, orientation = stack.enter_context(opened_image(file, formats, max_pixels))
        if not accept_large and COPIES.get(image.format or "", 1) * image.width * image.height > LARGE_PIXELS:
            raise LargeImageError(f"{image.width} x {image.height} pixels")
        return _upright_rgb(image, min_side, orientation)


def _stated_orientation(image: Image.Image) -> int:
    """Return the orientation in the EXIF data of an image that somebody has opened."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # PIL raises anything on odd EXIF bytes
        return 1


def _upright_rgb(image: Image.Image, min_side: int, orientation: int) -> Image.Image:
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise ValueError(f"{image.width} x {image.height} pixels: too long and thin")
    if min_side and image.format == "JPEG":
        image.draft("RGB", (2 * min_side, 2 * min_side))
    factor = max(1, min(image.size) // (2 * min_side) if min_side else 1)
    is_thin = max(image.size) > THIN_ASPECT * min(image.size)
    if min_side and is_thin and image.width * image.height > MAX_THIN_PIXELS * factor**2:
        raise ValueError(f"{image.width} x {image.height} pixels: too long and thin for so many")
    image.load()
    extrema = _check_extrema(image) if _is_numeric(image) else None
    is_large = image.width * image.height > STRIPS_FROM
    rgb = _rgb_by_strips(image, extrema, factor) if is_large else _as_rgb(image, extrema)
    rgb.info = {}  # it may hold long texts
    return rgb.transpose(TURNS[orientation]) if orientation in TURNS else rgb


def _rgb_by_strips(image: Image.Image, extrema: tuple[float, float] | None, factor: int) -> Image.Image:
    """Return an image in RGB at a fraction of its size, with a part of its pixels at a time in other forms."""
    width, height = image.size
    rgb = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    rows = factor * max(1, STRIP_PIXELS // (width * factor))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows)))
        if image.mode == "LAB":  # few pixels first: each costs as much as fifty of others
            rgb.paste(_as_rgb(strip.reduce(factor), extrema), (0, top // factor))
        else:
            rgb.paste(_as_rgb(strip, extrema).reduce(factor), (0, top // factor))
    return rgb


def _is_numeric(image: Image.Image) -> bool:
    """Return whether pixels are wide integers or floats, which PIL's own conversion would clip to white."""
    return image.mode.startswith("I") or image.mode == "F"


def _check_extrema(image: Image.Image) -> tuple[float, float]:
    """Return the least and the largest value of an image of one band, checked."""
    if image.mode.startswith("I;16"):
        return 0, 65535
    low, high = image.getextrema()
    assert isinstance(low, (int, float)) and isinstance(high, (int, float))  # of one band
    _check_range(low, high, image.mode == "F")
    return low, high


def _as_rgb(image: Image.Image, extrema: tuple[float, float] | None) -> Image.Image:
    if extrema is not None:
        if image.mode.startswith("I;16") and image.mode != "I;16":  # numbers as other machines write them
            image = image.convert("I")
        image = Image.fromarray(_to_bytes(np.asarray(image), is_wide=extrema[1] > 255))
    if isinstance(image.info.get("transparency"), bytes):  # PIL warns otherwise; the colors are the same
        image = image.convert("RGBA")
    return image.convert("RGB")


def _from_array(value: Any) -> Image.Image:
    if torch.is_tensor(value):
        value = value.detach().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value
    array = np.asarray(value)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or not array.size:
        raise ValueError(f"an array of shape {array.shape} is not an image")
    if array.dtype == bool:
        array = array * np.uint8(255)
    _check_range(array.min(), array.max(), np.issubdtype(array.dtype, np.floating))
    is_wide = array.dtype.itemsize > 1 and (array.dtype == np.uint16 or array.max() > 255)
    return Image.fromarray(_to_bytes(array, is_wide))


def _check_range(low: Any, high: Any, is_float: bool) -> None:
    if is_float and not (low >= 0.0 and high <= 1.0):
        raise ValueError("float images must lie in [0, 1]: pass them before normalization")
    if not is_float and (low < 0 or high > 65535):
        raise ValueError("integer images must lie in 0 to 255, or 0 to 65535")


def _to_bytes(array: np.ndarray, is_wide: bool) -> np.ndarray:
    """Return numbers of the checked range as uint8; those that are wide use 16 bits."""
    if np.issubdtype(array.dtype, np.floating):
        array = (array * 255.0).round()
    elif is_wide:
        array = WIDE_TO_BYTE[array]
    return np.ascontiguousarray(array.astype(np.uint8))

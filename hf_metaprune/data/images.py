"""Images in memory: decoding them once into uint8 tensors, and making batches and augmented copies of them."""

from __future__ import annotations

import contextlib
import io
import logging
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from ..errors import DataError, printable
from .limits import MAX_CORRUPT_SHARE, MAX_UNREADABLE
from .preprocessing import Preprocessing

log = logging.getLogger(__name__)

MAX_CACHE_BYTES = 4 << 30  # bytes of all decoded images of a split
MAX_ASPECT = 50  # resizing the shorter side of anything longer would ask for too much memory
DECODE_CHUNK = 16


def open_image(value: Any, min_side: int = 0) -> Image.Image:
    """Return an upright RGB image.

    An image whose EXIF data is damaged is not turned.

    Args:
        value: a path, encoded bytes, a PIL image, or an array or tensor of shape HWC, CHW or HW. Floats lie in [0, 1].
            Integers lie in [0, 255], or are 16 bits wide and use their full range.
        min_side: shortest side that the caller needs, in pixels. A JPEG may be decoded at reduced size, but never
            below twice this.

    Raises:
        OSError, ValueError, TypeError, Image.DecompressionBombError: the image cannot be read.
    """
    if isinstance(value, dict) and ("bytes" in value or "path" in value):
        value = value["bytes"] if value.get("bytes") is not None else value["path"]
    if isinstance(value, Image.Image):
        return _upright_rgb(value, min_side)
    if torch.is_tensor(value) or isinstance(value, np.ndarray):
        return _from_array(value).convert("RGB")
    if isinstance(value, (bytes, bytearray)):
        value = io.BytesIO(value)
    if not isinstance(value, (str, Path)) and not hasattr(value, "read"):
        raise TypeError(f"a {type(value).__name__} is not an image")
    if isinstance(value, (str, Path)) and not stat.S_ISREG(Path(value).stat().st_mode):  # a pipe would never end
        raise ValueError("no regular file")
    with Image.open(value) as image:
        return _upright_rgb(image, min_side)


def _upright_rgb(image: Image.Image, min_side: int) -> Image.Image:
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise ValueError(f"{image.width} x {image.height} pixels: too long and thin")
    if min_side and image.format == "JPEG":
        image.draft("RGB", (2 * min_side, 2 * min_side))
    with contextlib.suppress(Exception):  # whatever PIL raises on odd EXIF bytes
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # PIL's own conversion would clip to white
        image = _from_array(np.asarray(image))
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
        array = array * 255.0
    elif np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0.0 and array.max() <= 1.0):
            raise ValueError("float images must lie in [0, 1]: pass them before normalization")
        array = (array * 255.0).round()
    elif array.min() < 0 or array.max() > 65535:
        raise ValueError("integer images must lie in 0 to 255, or 0 to 65535")
    elif array.dtype.itemsize > 1 and (array.dtype == np.uint16 or array.max() > 255):
        array = (array / 257.0).round()
    return Image.fromarray(np.ascontiguousarray(array.astype(np.uint8)))


@dataclass
class ImageSet(torch.utils.data.Dataset):
    """Labeled images in the size that a network needs, not yet normalized.

    Example:
        >>> images = ImageSet(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]), Preprocessing())
        >>> pixels, targets = next(images.batches(3))
        >>> pixels.shape, pixels.dtype, targets.tolist()
        (torch.Size([3, 3, 32, 32]), torch.float32, [0, 0, 1])
        >>> images.subset([3, 0]).targets.tolist()
        [1, 0]
    """

    images: torch.Tensor
    """Images, uint8 (n, 3, height, width)."""
    targets: torch.Tensor
    """Class indices, int64 (n,)."""
    preprocessing: Preprocessing
    """How the images were resized, and how they are to be normalized."""
    skipped_images: list[str] = field(default_factory=list)
    """A line per image that could not be read: which one, and why."""

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[i], self.targets[i]

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        index = torch.as_tensor(rows)
        return self.images[index], self.targets[index]

    def joined(self, other: ImageSet) -> ImageSet:
        """Return the images of both sets, those of this one first."""
        images, targets = torch.cat([self.images, other.images]), torch.cat([self.targets, other.targets])
        return ImageSet(images, targets, self.preprocessing, [*self.skipped_images, *other.skipped_images])

    def subset(self, rows: Sequence[int] | np.ndarray | torch.Tensor) -> ImageSet:
        """Return the images at `rows`, in that order.

        Args:
            rows: indices of images, int (n,).

        Returns:
            A new set with copies of the images.
        """
        index = torch.as_tensor(np.asarray(rows), dtype=torch.long)
        return ImageSet(self.images[index], self.targets[index], self.preprocessing)

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield normalized images and their targets, batch by batch.

        Args:
            size: images per batch; the last batch may be smaller.

        Yields:
            The images, float32 (size, 3, height, width), and their targets, int64 (size,), in order.
        """
        for i in range(0, len(self), size):
            yield self.preprocessing.normalize(self.images[i : i + size]), self.targets[i : i + size]

    def stratified(self, limit: int, seed: int, per_class: int | None = None) -> ImageSet:
        """Return a random sample with about equally many images per class.

        Args:
            limit: most images of all classes together.
            seed: seed of the choice.
            per_class: most images per class, if that is limited.
        """
        if len(self) <= limit and per_class is None:
            return self
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(self))
        targets = self.targets.numpy()[order]
        rank = np.empty(len(self), dtype=np.int64)
        for c in np.unique(targets):
            rank[targets == c] = np.arange((targets == c).sum())
        first = np.argsort(rank, kind="stable")[:limit]
        rows = order[first if per_class is None else first[rank[first] < per_class]]
        return self.subset(np.sort(rows))


def decode_images(
    fetch: Callable[[int], Any],
    targets: np.ndarray,
    preprocessing: Preprocessing,
    describe: Callable[[int], str] = str,
    progress: bool = False,
    unreadable: Sequence[str] = (),
) -> ImageSet:
    """Decode images in threads; unreadable ones are skipped and listed, if they are at most 1%.

    Args:
        fetch: a function that returns the i-th image, in any form that `open_image` reads.
        targets: class indices, int (n,).
        preprocessing: how images are resized and cropped.
        describe: a function that names the i-th image in messages.
        progress: show a progress bar.
        unreadable: messages about images beyond the n that could not even be fetched; they count as unreadable.

    Raises:
        DataError: more than 1% are unreadable, or the images would not fit in memory at the network's size.
    """
    _, height, width = preprocessing.input_size
    n, need = len(targets), len(targets) * 3 * height * width
    if need > MAX_CACHE_BYTES:
        raise DataError(
            f"{n} images of {width} x {height} pixels need {need / 2**30:.1f} GiB of memory, more than the "
            f"{MAX_CACHE_BYTES >> 30} GiB allowed: use fewer images (a few hundred per class are enough)"
        )
    images = torch.empty(n, 3, height, width, dtype=torch.uint8)
    is_readable = np.ones(n, dtype=bool)
    skipped_images = list(unreadable)
    side = max(height, width)

    def load(i: int) -> Image.Image | str:
        try:
            return open_image(fetch(i), side)
        except MemoryError:
            raise
        except Exception as error:  # decoders and data sets of others raise anything
            return f"{describe(i)}: {error or type(error).__name__}"

    with ThreadPoolExecutor() as pool:
        for start in tqdm(range(0, n, DECODE_CHUNK), desc="reading images", disable=not progress, leave=False):
            rows = range(start, min(n, start + DECODE_CHUNK))
            loaded_rows = list(pool.map(load, rows))
            failures = {i: item for i, item in zip(rows, loaded_rows, strict=True) if isinstance(item, str)}
            is_readable[list(failures)] = False
            skipped_images += failures.values()
            if len(skipped_images) > MAX_UNREADABLE:
                _check_share(skipped_images, n + len(unreadable))
            readable_rows = [i for i in rows if i not in failures]
            if readable_rows:
                images[readable_rows] = preprocessing.to_uint8(
                    [item for item in loaded_rows if not isinstance(item, str)]
                )
    _check_share(skipped_images, n + len(unreadable))
    for line in skipped_images:
        log.warning("skipped an unreadable image, %s", printable(line))
    return ImageSet(images[is_readable], torch.from_numpy(targets[is_readable]).long(), preprocessing, skipped_images)


def _check_share(skipped_images: Sequence[str], n: int) -> None:
    """Check that few of n images cannot be read.

    Raises:
        DataError: more than 1% or `MAX_UNREADABLE` cannot.
    """
    if len(skipped_images) > min(MAX_CORRUPT_SHARE * n, MAX_UNREADABLE):
        examples = "; ".join(skipped_images[:3])
        raise DataError(
            f"{len(skipped_images)} of {n} images cannot be read ({examples}): remove or mend them; "
            f"up to 1%, and at most {MAX_UNREADABLE}, are skipped"
        )


def augment(images: torch.Tensor, generator: torch.Generator, flip: bool = True, shift: float = 0.125) -> torch.Tensor:
    """Return randomly mirrored and shifted copies of images; borders are reflected.

    Args:
        images: float (n, channels, height, width).
        generator: source of random numbers, on the CPU.
        flip: mirror half of the images.
        shift: largest shift in each direction, as a share of the shorter side.

    Returns:
        float (n, channels, height, width).
    """
    n, _, h, w = images.shape
    pad = int(shift * min(h, w))
    rows = torch.arange(h).expand(n, h)
    cols = torch.arange(w).expand(n, w)
    if pad:
        images = F.pad(images, (pad,) * 4, mode="reflect")
        rows = rows + torch.randint(0, 2 * pad + 1, (n, 1), generator=generator)
        cols = cols + torch.randint(0, 2 * pad + 1, (n, 1), generator=generator)
    if flip:
        cols = torch.where(torch.rand(n, 1, generator=generator) < 0.5, cols.flip(1), cols)
    if not pad and not flip:
        return images
    rows, cols = rows.to(images.device), cols.to(images.device)
    batch = torch.arange(n, device=images.device)[:, None, None]
    return images[batch, :, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)

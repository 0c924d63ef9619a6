"""Images in memory: decoding them once into uint8 tensors, and making batches and augmented copies of them."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm.auto import tqdm

from ..errors import DataError, printable
from .decoding import LargeImageError, open_image
from .limits import MAX_CORRUPT_SHARE, MAX_UNREADABLE
from .preprocessing import Preprocessing

log = logging.getLogger(__name__)

MAX_CACHE_BYTES = 4 << 30  # bytes of all decoded images of a split
DECODE_CHUNK, MAX_THREADS = 16, 8
MOST_STRETCH = 4 / 3
"""Most that a random part of an image is wider than high, or higher than wide, where the image has room."""


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

    def load(i: int, accept_large: bool = False) -> Image.Image | str | None:
        try:
            return open_image(fetch(i), side, accept_large=accept_large)
        except MemoryError:
            raise
        except LargeImageError:
            return None
        except Exception as error:  # decoders and data sets of others raise anything
            return f"{_name(describe, i)}: {error or type(error).__name__}"

    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for start in tqdm(range(0, n, DECODE_CHUNK), desc="reading images", disable=not progress, leave=False):
            rows = range(start, min(n, start + DECODE_CHUNK))
            # large images one by one in this thread: each thread of a pool would keep the memory of its largest image
            loaded = zip(rows, pool.map(load, rows), strict=True)
            loaded_rows = [load(i, accept_large=True) if item is None else item for i, item in loaded]
            failures = {i: item for i, item in zip(rows, loaded_rows, strict=True) if isinstance(item, str)}
            is_readable[list(failures)] = False
            skipped_images += failures.values()
            if len(skipped_images) > MAX_UNREADABLE:
                _check_share(skipped_images, n + len(unreadable))
            readable_rows = [i for i in rows if i not in failures]
            if readable_rows:
                images[readable_rows] = preprocessing.to_uint8(
                    [item for item in loaded_rows if isinstance(item, Image.Image)]
                )
    _check_share(skipped_images, n + len(unreadable))
    for line in skipped_images:
        log.warning("skipped an unreadable image, %s", printable(line))
    return ImageSet(images[is_readable], torch.from_numpy(targets[is_readable]).long(), preprocessing, skipped_images)


def _name(describe: Callable[[int], str], i: int) -> str:
    """Return the name of an image, or its number if its name cannot be read either."""
    try:
        return describe(i)
    except Exception:  # of a data set of others
        return f"image {i}"


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


def crop_at_random(images: torch.Tensor, generator: torch.Generator, smallest_share: float) -> torch.Tensor:
    """Return random parts of images, enlarged to the images' size (random resized crops; Szegedy et al., 2015).

    Args:
        images: float (n, channels, height, width).
        generator: source of random numbers, on the CPU.
        smallest_share: smallest share of an image's area that a part has, in (0, 1]; 1: the images themselves.

    Returns:
        float (n, channels, height, width).
    """
    if smallest_share == 1.0:
        return images
    n = len(images)
    area = smallest_share + (1 - smallest_share) * torch.rand(n, generator=generator)
    stretch = torch.exp(math.log(MOST_STRETCH) * (2 * torch.rand(n, generator=generator) - 1)).sqrt()
    sides = torch.stack([area.sqrt() * stretch, area.sqrt() / stretch], 1).clamp(max=1.0)
    centers = (1 - sides) * (2 * torch.rand(n, 2, generator=generator) - 1)
    transforms = torch.cat([torch.diag_embed(sides), centers[:, :, None]], 2).to(images)
    grid = F.affine_grid(transforms, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

"""Photos that visitors send: files and zips become pixels in memory, within limits, and nothing else is kept."""

from __future__ import annotations

import hashlib
import math
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

import torch
from PIL import Image

from ..data.decoding import open_image
from ..data.images import ImageSet
from ..data.loading import hold_back
from ..data.photos import NO_CLASS
from ..data.picture_parts import CostlyImageError
from ..data.preprocessing import Preprocessing
from ..data.task import Task, TaskData
from ..errors import DataError, printable, reason
from ..text import quantity
from .limits import UploadLimits
from .zips import list_members, read_member

if TYPE_CHECKING:
    from ..data.hub_samples import SampleRequest

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Formats that cameras, phones and screens write, of those that `data.encoded` decodes."""
FILLERS = "\u115f\u1160\u3164\uffa0"
"""Letters that look like spaces."""
GONE = "the server no longer has the file: choose it again"
"""The message of a file that was deleted meanwhile."""
MAX_SHOWN_REFUSALS = 20
"""Most refused files that a receipt names."""


@dataclass
class Receipt:
    """The outcome of one upload."""

    n_added: int = 0
    """Photos that were added."""
    refusals: list[str] = field(default_factory=list)
    """The name of each file that was refused, with the cause."""

    def refuse(self, name: str, cause: str) -> None:
        """Note a file that was refused, and why."""
        self.refusals.append(f"{short_name(name)}: {cause}")

    def summary(self, destination: str = "") -> str:
        """Return the receipt as a few sentences.

        Args:
            destination: the class that the photos were added to, if it is one class.
        """
        lines = [
            f"Added {quantity(self.n_added, 'photo')}{f' to {destination}' if destination and self.n_added else ''}."
        ]
        if not self.n_added:
            lines[0] += " Try other files." if self.refusals else " Choose some first."
        if self.refusals:
            shown_refusals = "; ".join(self.refusals[:MAX_SHOWN_REFUSALS])
            lines.append(f"Skipped {quantity(len(self.refusals), 'file')}: {shown_refusals}")
            if len(self.refusals) > MAX_SHOWN_REFUSALS:
                lines[-1] += f"; and {len(self.refusals) - MAX_SHOWN_REFUSALS} more"
        return "\n".join(lines)


class Photos:
    """The photos of one visitor by class, as pixels of the network's input size: uint8 (3, height, width) each.

    Args:
        preprocessing: the preprocessing of the network.
        limits: limits of what the visitor may send.
        is_server_full: whether all visitors together hold as many photos as the server can.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        limits: UploadLimits | None = None,
        is_server_full: Callable[[], bool] = lambda: False,
    ) -> None:
        self.preprocessing, self.limits = preprocessing, limits or UploadLimits()
        self.is_server_full = is_server_full
        self.by_class: dict[str, list[torch.Tensor]] = {}
        self.unlabeled: list[torch.Tensor] = []
        """Photos of any of the classes, from which the base teaches the model."""
        self.bytes = 0
        self._class_by_digest: dict[bytes, str | None] = {}
        """The class of each file by its sha256: a file that came twice would be both trained on and measured on."""

    def __len__(self) -> int:
        return len(self.unlabeled) + sum(map(len, list(self.by_class.values())))  # other visitors' threads ask, too

    @property
    def pixel_bytes(self) -> int:
        """Bytes of the photos in memory."""
        return len(self) * math.prod(self.preprocessing.input_size)

    def add(self, label: str, files: Sequence[str | Path | bytes]) -> Receipt:
        """Add photos to a class.

        Args:
            label: the name of the class, as the visitor has typed it.
            files: paths or contents of files.

        Returns:
            What was added and what was refused.

        Raises:
            DataError: the name of the class cannot be used, or there are too many classes.
        """
        return self._add_files(self._class_name(label), files)

    def add_unlabeled(self, files: Sequence[str | Path | bytes]) -> Receipt:
        """Add photos whose classes are not known.

        Args:
            files: paths or contents of files.

        Returns:
            What was added and what was refused.
        """
        return self._add_files(None, files)

    def _add_files(self, class_name: str | None, files: Sequence[str | Path | bytes]) -> Receipt:
        """Add photos to a class, or to those without labels (None)."""
        receipt, deadline = Receipt(), time.monotonic() + self.limits.seconds
        for i, file in enumerate(files):
            file_name = f"file {i + 1}" if isinstance(file, bytes) else Path(file).name
            if self._refuse_over_limits(receipt, file_name, deadline):
                break
            try:
                data = _read_bytes(file, self.limits)
            except DataError as error:
                receipt.refuse(file_name, str(error))
                continue
            self.bytes += len(data)
            self._add_photo(receipt, class_name, file_name, data)
        return receipt

    def add_zip(self, path: str | Path) -> Receipt:
        """Add the photos of a zip with one folder per class; nothing is written to disk.

        Args:
            path: the zip.

        Returns:
            What was added and what was refused.

        Raises:
            DataError: the file is no zip, is too large, has no folders with photos, or is not there any more.
        """
        receipt, deadline = Receipt(), time.monotonic() + self.limits.seconds
        with _opened(path) as file:
            archive, members = list_members(file, self.limits)
            for info, parts in members:
                if self._refuse_over_limits(receipt, info.filename, deadline):
                    break
                try:
                    data = read_member(archive, info, parts, self.limits)
                    self.bytes += len(data)
                    if len(data) > self.limits.file_bytes:
                        raise DataError(self.limits.large_file_cause)
                    self._add_photo(receipt, self._class_name(parts[0]), info.filename, data)
                except DataError as error:
                    receipt.refuse(info.filename, str(error))
        if not receipt.n_added and not self:
            cause = f": {receipt.refusals[0]}" if receipt.refusals else ""
            raise DataError(f"the zip has no photos in folders, one folder per class{cause}")
        return receipt

    def add_from_hub(self, request: SampleRequest) -> Receipt:
        """Add some images of a data set on the Hub.

        Args:
            request: the data set, its classes, and how many images to take.

        Returns:
            What was added and what was refused.

        Raises:
            DataError: there is no such public data set, or it has no images with labels.
        """
        from ..data.hub_samples import stream_samples

        receipt, deadline = Receipt(), time.monotonic() + self.limits.seconds
        received_labels = set()
        for label, data in stream_samples(request, self.limits.seconds):
            if self._refuse_over_limits(receipt, label, deadline):
                break
            received_labels.add(label)
            self.bytes += len(data)
            try:
                self._add_photo(receipt, self._class_name(label), f"an image of {label}", data)
            except DataError as error:
                receipt.refuse(label, str(error))
        for name in sorted(set(request.names) - received_labels):
            receipt.refuse(name, "the data set has no image of this class")
        return receipt

    def remove(self, label: str | None) -> None:
        """Remove a class with its photos, or the photos without labels (None)."""
        if label is None:
            self.unlabeled = []
        else:
            self.by_class.pop(label, None)
        self._class_by_digest = {digest: name for digest, name in self._class_by_digest.items() if name != label}

    def data(self, share: float = 0.2, seed: int = 0) -> TaskData:
        """Return the photos as a task.

        Args:
            share: share of each class that is held back to measure on.
            seed: seed of the choice of these photos.

        Raises:
            DataError: there are fewer than two classes, or a class has too few photos.
        """
        if len(self.by_class) < 2:
            n_classes = quantity(len(self.by_class), "class", "classes")
            raise DataError(f"there are photos of {n_classes}: add photos of at least two classes")
        images = torch.stack([photo for photos in self.by_class.values() for photo in photos])
        targets = torch.tensor([i for i, photos in enumerate(self.by_class.values()) for _ in photos])
        return hold_back(
            Task(tuple(self.by_class)), ImageSet(images, targets, self.preprocessing), share, seed, "photos"
        )

    def unlabeled_images(self) -> ImageSet | None:
        """Return the photos without labels, or None if there are none."""
        if not self.unlabeled:
            return None
        targets = torch.full((len(self.unlabeled),), NO_CLASS)
        return ImageSet(torch.stack(self.unlabeled), targets, self.preprocessing)

    def _class_name(self, label: str) -> str:
        """Return the cleaned name of a class, or that of the class which differs only in case or composition."""
        name = clean_label(label, self.limits.label_length)
        for known_name in self.by_class:
            if known_name.casefold() == name.casefold():
                return known_name
        if len(self.by_class) >= self.limits.classes:
            raise DataError(f"the limit is {self.limits.classes} classes")
        return name

    def _refuse_over_limits(self, receipt: Receipt, file_name: str, deadline: float) -> bool:
        """Refuse a file if a limit is reached, and return whether it was refused."""
        limits, consequence = self.limits, "this file and the following ones are skipped"
        for is_over, cause in (
            (len(self) >= limits.photos, f"the limit is {limits.photos} photos; {consequence}"),
            (
                self.bytes >= limits.total_bytes,
                f"the limit is {limits.total_bytes // 1_000_000} MB in all; {consequence}",
            ),
            (self.is_server_full(), "the page has no room for more photos now; try again in an hour"),
            (time.monotonic() > deadline, f"the limit is {limits.seconds:g} s per upload; {consequence}"),
        ):
            if is_over:
                receipt.refuse(file_name, cause)
                return True
        return False

    def _add_photo(self, receipt: Receipt, class_name: str | None, file_name: str, data: bytes) -> None:
        digest = hashlib.sha256(data).digest()
        if digest in self._class_by_digest:
            known_name = self._class_by_digest[digest]
            whose = "those without labels have" if known_name is None else f"the class “{known_name}” has"
            receipt.refuse(file_name, f"{whose} this photo already")
            return
        try:
            photo = read_photo(data, self.limits, max(self.preprocessing.input_size[1:]))
        except DataError as error:
            receipt.refuse(file_name, str(error))
            return
        self._class_by_digest[digest] = class_name
        photos = self.unlabeled if class_name is None else self.by_class.setdefault(class_name, [])
        photos.append(self.preprocessing.to_uint8([photo])[0])
        receipt.n_added += 1


def read_photo(data: bytes, limits: UploadLimits, min_side: int = 0) -> Image.Image:
    """Return a file's pixels as an upright RGB image; an animation gives its first picture.

    Args:
        data: the content of the file.
        limits: limits of what a visitor may send.
        min_side: shortest side in pixels that the caller needs; a decoder may reduce a larger photo.

    Raises:
        DataError: the file is not a photo in a common format, is too large, or is damaged.
    """
    try:
        return open_image(data, min_side, formats=FORMATS, max_pixels=limits.pixels)
    except CostlyImageError as error:
        raise DataError(str(error)) from error
    except Image.UnidentifiedImageError as error:
        raise DataError("not a photo in a common format, such as JPEG or PNG") from error
    except MemoryError as error:
        raise DataError("too large") from error
    except Exception as error:  # a decoder may raise any exception
        raise DataError(f"damaged ({reason(error)})") from error


def read_photo_file(path: str | Path, limits: UploadLimits, min_side: int = 0) -> Image.Image:
    """Return the pixels of a file that was sent, as `read_photo` does.

    Raises:
        DataError: the reasons of `read_photo`, or the file is deleted.
    """
    return read_photo(_read_bytes(path, limits), limits, min_side)


def _read_bytes(file: str | Path | bytes, limits: UploadLimits) -> bytes:
    try:
        size = len(file) if isinstance(file, bytes) else Path(file).stat().st_size
        if size > limits.file_bytes:
            raise DataError(limits.large_file_cause)
        return file if isinstance(file, bytes) else Path(file).read_bytes()
    except FileNotFoundError as error:
        raise DataError(GONE) from error


def _opened(path: str | Path) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except FileNotFoundError as error:
        raise DataError(GONE) from error


def clean_label(text: str, max_length: int) -> str:
    """Return the name of a class as one line of composed characters, without control characters.

    Args:
        text: the name, as the visitor has typed it.
        max_length: most characters.

    Raises:
        DataError: the name is empty or too long.
    """
    if len(text) > 100 * max_length:
        raise DataError(f"the name of a class has at most {max_length} characters")
    composed_text = unicodedata.normalize("NFC", text)
    name = " ".join("".join(c if c.isprintable() and c not in FILLERS else " " for c in composed_text).split())
    if not name:
        raise DataError("a class needs a name")
    if len(name) > max_length:
        raise DataError(f"the name of a class has at most {max_length} characters, not {len(name)}: {name[:20]}…")
    return name


def short_name(path: str) -> str:
    """Return the name of a file as messages show it: without folders, printable, at most 40 characters."""
    name = printable(PurePosixPath(path.replace("\\", "/")).name) or "file"
    return name if len(name) <= 40 else name[:39] + "…"

"""Photos that strangers send: files and zips become pixels in memory, within limits; nothing else of them is kept."""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import time
import unicodedata
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import torch
from PIL import Image

from ..data.images import ImageSet, open_image
from ..data.loading import hold_back
from ..data.preprocessing import Preprocessing
from ..data.sources import EVALUATION_NAMES, TRAIN_NAMES
from ..data.task import Task, TaskData
from ..errors import DataError, printable, reason
from ..text import quantity
from .limits import UploadLimits

if TYPE_CHECKING:
    from ..data.hub_samples import Wanted

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
"""What cameras, phones and screens write. Decoders of others are slow, start programs, or are rarely looked at."""
SHOWN_REFUSALS = 20


@dataclass
class Receipt:
    """What became of one upload: how many photos were taken, and why others were not."""

    taken: int = 0
    refused: list[str] = field(default_factory=list)

    def refuse(self, name: str, why: str) -> None:
        """Note a file that was not taken."""
        self.refused.append(f"{shown_name(name)}: {why}")

    def words(self, into: str = "") -> str:
        """The receipt in a few sentences; `into`: where they went, if all to one place."""
        lines = [f"Took {quantity(self.taken, 'photo')}{f' into {into}' if into and self.taken else ''}."]
        if not self.taken:
            lines[0] += " Try others." if self.refused else " Choose some first."
        if self.refused:
            lines.append(f"Left out {quantity(len(self.refused), 'file')}: {'; '.join(self.refused[:SHOWN_REFUSALS])}")
            if len(self.refused) > SHOWN_REFUSALS:
                lines[-1] += f"; and {len(self.refused) - SHOWN_REFUSALS} more"
        return "\n".join(lines)


class Photos:
    """The photos of one visitor by class, as pixels of the network's input size: uint8 (3, height, width) each."""

    def __init__(self, preprocessing: Preprocessing, limits: UploadLimits | None = None) -> None:
        self.preprocessing, self.limits = preprocessing, limits or UploadLimits()
        self.by_class: dict[str, list[torch.Tensor]] = {}
        self.bytes = 0
        self._seen: dict[bytes, str] = {}
        """The class of each file by its digest: twice the same would be learnt from, and measured on."""

    def __len__(self) -> int:
        return sum(map(len, self.by_class.values()))

    def add(self, label: str, files: Sequence[str | Path | bytes]) -> Receipt:
        """Take photos of one class.

        Raises:
            DataError: the name of the class cannot be used, or there are too many classes.
        """
        receipt, until = Receipt(), time.monotonic() + self.limits.seconds
        name = self._class(label)
        for i, file in enumerate(files):
            called = f"file {i + 1}" if isinstance(file, bytes) else Path(file).name
            if self._full(receipt, called, until):
                break
            try:
                data = _bytes(file, self.limits)
            except DataError as error:
                receipt.refuse(called, str(error))
                continue
            self.bytes += len(data)
            self._take(receipt, name, called, data)
        return receipt

    def add_zip(self, path: str | Path) -> Receipt:
        """Take the photos of a zip with a folder for each class; nothing is written to disk.

        Raises:
            DataError: it is no zip, too large, or holds no folders of photos.
        """
        receipt, until = Receipt(), time.monotonic() + self.limits.seconds
        with open(path, "rb") as file:
            archive, folders = _opened(file, self.limits)
            for info, parts in folders:
                if self._full(receipt, info.filename, until):
                    break
                try:
                    data = _content(archive, info, parts, self.limits)
                    self.bytes += len(data)
                    if len(data) > self.limits.file_bytes:
                        raise DataError(_too_large(self.limits))
                    self._take(receipt, self._class(parts[0]), info.filename, data)
                except DataError as error:
                    receipt.refuse(info.filename, str(error))
        if not receipt.taken and not self:
            why = f": {receipt.refused[0]}" if receipt.refused else ""
            raise DataError(f"the zip holds no photos in folders, a folder for each class{why}")
        return receipt

    def add_from_hub(self, wanted: Wanted) -> Receipt:
        """Take some images of a data set on the Hub.

        Raises:
            DataError: there is no such public data set, or it has no images with labels.
        """
        from ..data.hub_samples import sampled

        receipt, until = Receipt(), time.monotonic() + self.limits.seconds
        came = set()
        for label, data in sampled(wanted, self.limits.seconds):
            if self._full(receipt, label, until):
                break
            came.add(label)
            self.bytes += len(data)
            try:
                self._take(receipt, self._class(label), f"an image of {label}", data)
            except DataError as error:
                receipt.refuse(label, str(error))
        for name in sorted(set(wanted.names) - came):
            receipt.refuse(name, "no image of it was found")
        return receipt

    def remove(self, label: str) -> None:
        """Forget a class."""
        self.by_class.pop(label, None)
        self._seen = {digest: name for digest, name in self._seen.items() if name != label}

    def data(self, share: float = 0.2, seed: int = 0) -> TaskData:
        """The photos as a task; a share of each class is held back to measure on.

        Raises:
            DataError: fewer than two classes, or a class with too few photos.
        """
        found = self.by_class
        if len(found) < 2:
            has = quantity(len(found), "class", "classes")
            raise DataError(f"there are photos of {has}: it takes at least two, to tell them apart")
        images = torch.stack([photo for photos in found.values() for photo in photos])
        targets = torch.tensor([i for i, photos in enumerate(found.values()) for _ in photos])
        return hold_back(Task(tuple(found)), ImageSet(images, targets, self.preprocessing), share, seed, "photos")

    def _class(self, label: str) -> str:
        """The class of that name, as it is known; names that differ in case or in composition alone are one."""
        name = clean_label(label, self.limits.label_length)
        for known in self.by_class:
            if known.casefold() == name.casefold():
                return known
        if len(self.by_class) >= self.limits.classes:
            raise DataError(f"at most {self.limits.classes} classes are taken")
        return name

    def _full(self, receipt: Receipt, called: str, until: float) -> bool:
        limits, rest = self.limits, "this and those after it are left out"
        for over, why in (
            (len(self) >= limits.photos, f"at most {limits.photos} photos are taken; {rest}"),
            (self.bytes >= limits.total_bytes, f"at most {limits.total_bytes // 1_000_000} MB are taken; {rest}"),
            (time.monotonic() > until, f"an upload may take {limits.seconds:g} s; {rest}"),
        ):
            if over:
                receipt.refuse(called, why)
                return True
        return False

    def _take(self, receipt: Receipt, label: str, called: str, data: bytes) -> None:
        digest = hashlib.sha256(data).digest()
        if digest in self._seen:
            receipt.refuse(called, f"it is among those of “{self._seen[digest]}” already")
            return
        try:
            photo = read_photo(data, self.limits, max(self.preprocessing.input_size[1:]))
        except DataError as error:
            receipt.refuse(called, str(error))
            return
        self._seen[digest] = label
        self.by_class.setdefault(label, []).append(self.preprocessing.to_uint8([photo])[0])
        receipt.taken += 1


def read_photo(data: bytes, limits: UploadLimits, min_side: int = 0) -> Image.Image:
    """The upright RGB image of a file: of an animation the first picture, and nothing but pixels.

    Raises:
        DataError: it is no photo of a common format, too large, or damaged.
    """
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]  # AVIF is new in Pillow
    try:
        with Image.open(io.BytesIO(data), formats=known) as image:
            if image.width * image.height > limits.pixels:
                size = f"{image.width} x {image.height}"
                raise DataError(f"{size} pixels; at most {limits.pixels // 1_000_000} million are taken")
            return open_image(image, min_side)
    except DataError:
        raise
    except Image.UnidentifiedImageError as error:
        raise DataError("no photo of a common kind, such as JPEG or PNG") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise DataError(f"too large; at most {limits.pixels // 1_000_000} million pixels are taken") from error
    except Exception as error:  # decoders raise anything
        raise DataError(f"damaged ({reason(error)})") from error


def read_photo_file(path: str | Path, limits: UploadLimits) -> Image.Image:
    """`read_photo` of a file that was sent.

    Raises:
        DataError: as of `read_photo`; or it is gone.
    """
    return read_photo(_bytes(path, limits), limits)


def _bytes(file: str | Path | bytes, limits: UploadLimits) -> bytes:
    try:
        size = len(file) if isinstance(file, bytes) else Path(file).stat().st_size
        if size > limits.file_bytes:
            raise DataError(_too_large(limits))
        return file if isinstance(file, bytes) else Path(file).read_bytes()
    except FileNotFoundError as error:
        raise DataError("it is not here any more: choose it again") from error


def clean_label(text: str, longest: int) -> str:
    """The name of a class as people see it: one line, composed, without control characters.

    Raises:
        DataError: nothing is left, or it is too long.
    """
    if len(text) > 100 * longest:
        raise DataError(f"the name of a class has at most {longest} characters")
    name = " ".join("".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", text)).split())
    if not name:
        raise DataError("a class needs a name")
    if len(name) > longest:
        raise DataError(f"the name of a class has at most {longest} characters, not {len(name)}: {name[:20]}…")
    return name


def shown_name(name: str) -> str:
    """A file's name as messages show it."""
    last = printable(PurePosixPath(name.replace("\\", "/")).name) or "file"
    return last if len(last) <= 40 else last[:39] + "…"


def _opened(
    file: IO[bytes], limits: UploadLimits
) -> tuple[zipfile.ZipFile, list[tuple[zipfile.ZipInfo, tuple[str, ...]]]]:
    """A zip, and its files with their paths from the class's folder on."""
    _check_directory(file, limits)
    try:
        archive = zipfile.ZipFile(file)
        for info in archive.infolist():
            info.filename = info.filename.replace("\\", "/")  # of programs that take Windows's own
        listed = [info for info in archive.infolist() if not _is_folder(info) and not _is_hidden(info.filename)]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise DataError(f"the zip cannot be read: {reason(error)}") from error
    if len(listed) > limits.members:
        raise DataError(f"the zip has {len(listed)} files; at most {limits.members} are taken")
    skip = _common_folders([info.filename for info in listed])
    return archive, [(info, PurePosixPath(info.filename).parts[skip:]) for info in listed]


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, parts: Sequence[str], limits: UploadLimits) -> bytes:
    """The bytes of a file in a zip, at most one more than a file may have.

    Raises:
        DataError: it is damaged, or no file to take photos from.
    """
    why = _why_not(info, parts, limits)
    if why:
        raise DataError(why)
    try:
        with archive.open(info) as member:
            return member.read(limits.file_bytes + 1)  # what the directory says of its size may be a lie
    except Exception as error:  # damaged members raise whatever their decompressor does
        raise DataError(f"damaged ({reason(error)})") from error


def _too_large(limits: UploadLimits) -> str:
    return f"larger than {limits.file_bytes // 1_000_000} MB"


def _check_directory(file: IO[bytes], limits: UploadLimits) -> None:
    """Refuse a zip whose list of files is larger than that of `limits.members` files, before it is read."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 65_557))  # the end record with the longest comment
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise DataError("this is no zip")
    entries, length = struct.unpack("<H", tail[at + 10 : at + 12])[0], struct.unpack("<L", tail[at + 12 : at + 16])[0]
    if entries == 0xFFFF or entries > 2 * limits.members or length > 1000 * limits.members:  # folders count, too
        raise DataError(f"the zip has more than {limits.members} files")
    file.seek(0)


def _why_not(info: zipfile.ZipInfo, parts: Sequence[str], limits: UploadLimits) -> str | None:
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link"
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "packed in an unusual way"
    if ".." in parts or info.filename.startswith("/") or ":" in (parts or [""])[0]:
        return "its path leads out of the zip, or has a colon"
    if len(parts) < 2:
        return "in no folder; put the photos of each class into a folder with the class's name"
    if PurePosixPath(info.filename).suffix.lower() in (".zip", ".tar", ".gz", ".7z", ".rar"):
        return "an archive in the archive"
    if info.file_size > limits.file_bytes:
        return _too_large(limits)
    return None


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith("/")  # is_dir() of Python 3.11 fails on an empty name


def _is_hidden(name: str) -> bool:
    """Whether a file is one that systems leave, such as ``__MACOSX/`` and ``.DS_Store``."""
    return any(part.startswith((".", "__")) and part != ".." for part in PurePosixPath(name).parts)


def _common_folders(names: Sequence[str]) -> int:
    """How many folders lie around those of the classes: of ``photos/cat/1.jpg`` and ``photos/dog/2.jpg``, one.

    So do ``train`` and ``test``, or the like, if there is nothing beside them.
    """
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    depth = 0
    while folders and all(len(folder) > depth + 1 for folder in folders):
        here = {folder[depth].lower() for folder in folders}
        if len(here) > 1 and not here <= {*TRAIN_NAMES, *EVALUATION_NAMES}:
            break
        depth += 1
    return depth

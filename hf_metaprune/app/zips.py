"""Zips that visitors send: their files are listed and read in memory, within limits, and never unpacked to disk."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import IO

from ..data.folders import SPLIT_NAMES
from ..errors import DataError, reason
from .limits import UploadLimits

ZIP64_LOCATOR = b"PK\x06\x07"


def list_members(
    file: IO[bytes], limits: UploadLimits
) -> tuple[zipfile.ZipFile, list[tuple[zipfile.ZipInfo, tuple[str, ...]]]]:
    """Return a zip, and its files with the parts of their paths from the class's folder on.

    Raises:
        DataError: the file is no zip, is damaged, or has too many files.
    """
    _check_directory(file, limits)
    try:
        archive = zipfile.ZipFile(file)
        for info in archive.infolist():
            info.filename = info.filename.replace("\\", "/")  # some programs on Windows write backslashes
        infos = [info for info in archive.infolist() if not _is_folder(info) and not _is_hidden(info.filename)]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise DataError(f"the zip cannot be read: {reason(error)}") from error
    if len(infos) > limits.members:
        raise DataError(f"the zip has {len(infos)} files; the limit is {limits.members}")
    depth = _count_common_folders([info.filename for info in infos])
    return archive, [(info, PurePosixPath(info.filename).parts[depth:]) for info in infos]


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, parts: Sequence[str], limits: UploadLimits) -> bytes:
    """Return the bytes of a file in a zip, at most one byte more than the limit.

    Raises:
        DataError: the file is damaged, or cannot be a photo of a class.
    """
    cause = _refusal_cause(info, parts, limits)
    if cause:
        raise DataError(cause)
    try:
        with archive.open(info) as member:
            return member.read(limits.file_bytes + 1)  # the size that the zip states may be wrong
    except Exception as error:  # a decompressor may raise any exception
        raise DataError(f"damaged ({reason(error)})") from error


def _check_directory(file: IO[bytes], limits: UploadLimits) -> None:
    """Check that the file list of a zip is not too long, before it is read.

    Raises:
        DataError: the file is no zip, or the list is longer than `limits.members` files need, or may be.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 65_557))  # the length of an end record with the longest comment
    tail = file.read()
    start = tail.rfind(b"PK\x05\x06")
    if start < 0 or len(tail) < start + 22:
        raise DataError("this file is not a zip")
    (n_members,) = struct.unpack("<H", tail[start + 10 : start + 12])
    (list_bytes,) = struct.unpack("<L", tail[start + 12 : start + 16])
    if tail[max(0, start - 20) :].startswith(ZIP64_LOCATOR):  # zipfile would believe other numbers than these
        raise DataError("the zip is in the form for huge archives (Zip64): make one with fewer files")
    if n_members == 0xFFFF or n_members > 2 * limits.members or list_bytes > 1000 * limits.members:  # with folders
        raise DataError(f"the zip has more than {limits.members} files")
    file.seek(0)


def _refusal_cause(info: zipfile.ZipInfo, parts: Sequence[str], limits: UploadLimits) -> str | None:
    """Return why a file in a zip is refused; None if it may be a photo of a class."""
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link"
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "compressed by an unusual method"
    if ".." in parts or info.filename.startswith("/") or ":" in (parts or [""])[0]:
        return "its path leads out of the zip, or has a colon"
    if len(parts) < 2:
        return "in no folder; put the photos of each class into a folder with the class's name"
    if PurePosixPath(info.filename).suffix.lower() in (".zip", ".tar", ".gz", ".7z", ".rar"):
        return "an archive in the archive"
    if info.file_size > limits.file_bytes:
        return limits.large_file_cause
    return None


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith("/")  # is_dir() of Python 3.11 fails on an empty name


def _is_hidden(name: str) -> bool:
    """Return whether a file is one that systems add, such as ``__MACOSX/`` and ``.DS_Store``."""
    return any(part.startswith((".", "__")) and part != ".." for part in PurePosixPath(name).parts)


def _count_common_folders(names: Sequence[str]) -> int:
    """Return how many folders contain the folders of the classes.

    Paths such as ``photos/cat/1.jpg`` and ``photos/dog/2.jpg`` have one such folder. Folders of splits, such as
    ``train`` and ``test``, count as one if nothing else lies beside them.
    """
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    depth = 0
    while folders and all(len(folder) > depth + 1 for folder in folders):
        siblings = {folder[depth].lower() for folder in folders}
        if len(siblings) > 1 and not siblings <= SPLIT_NAMES:
            break
        depth += 1
    return depth

"""Reading files that anybody may have written: regular files only, of bounded size, and never through a link."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import FormatError

BLOCKS, SNAPSHOTS = "blobs", "snapshots"
"""Folders of a repo in the cache of huggingface_hub: contents by digest, and links to them by commit and name."""
CACHED_REPO = re.compile(r"(models|datasets|spaces)--.+")
MAX_FOLDERS = 50
"""Most levels of folders below one that somebody else has made."""
COMMIT, DIGEST = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path, root: Path | None = None) -> BinaryIO:
    """Open a regular file for reading.

    Links are not followed, except those of huggingface_hub's cache, which lead to a content of the same repo. What is
    opened is checked once more, because another process may have replaced it.

    Args:
        path: the file.
        root: a folder above the file; no folder between them may be a link. If left out, the folders are not checked.

    Returns:
        The opened file.

    Raises:
        FormatError: there is something else than a regular file.
        OSError: there is nothing, or it cannot be opened.
    """
    target = cached_content(path) or path
    if target != path and not target.exists():
        raise FormatError(f"{path}: the cache has lost its content; download it again")
    _check_kind(path, target.lstat().st_mode)
    try:
        if root is None or target != path:
            handle = os.open(target, _flags("O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
        else:
            handle = _open_below(root, path.relative_to(root))
    except OSError as error:
        if error.errno == errno.ELOOP:
            _check_kind(path, stat.S_IFLNK)
        raise
    try:
        _check_kind(path, os.fstat(handle).st_mode)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _flags(*names: str) -> int:
    """Return the flags that open a file for reading, and not through a link; each system has some of them."""
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_CLOEXEC", *names):
        flags |= getattr(os, name, 0)
    return flags


def _open_below(root: Path, relative: Path) -> int:
    """Open a file step by step from a folder, so that none of the folders between can become a link meanwhile.

    Raises:
        FormatError: a folder is a link.
    """
    if os.open not in os.supports_dir_fd:  # Windows, where only an administrator makes links
        check_no_links(root, relative.as_posix())
        return os.open(root / relative, _flags("O_NONBLOCK", "O_BINARY"))
    folder = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for number, name in enumerate(relative.parts[:-1], 1):
            try:
                inner = os.open(name, _flags("O_DIRECTORY"), dir_fd=folder)
            except NotADirectoryError as error:
                raise FormatError(f"{root / Path(*relative.parts[:number])} is a link, or no folder") from error
            os.close(folder)
            folder = inner
        return os.open(relative.name, _flags("O_NONBLOCK", "O_NOCTTY"), dir_fd=folder)
    finally:
        os.close(folder)


def check_regular(path: Path) -> None:
    """Check that a library which opens files by their names will find a regular file.

    Raises:
        FormatError: there is something else than a regular file.
        OSError: there is nothing, or it cannot be opened.
    """
    open_regular(path).close()


def read_regular(path: Path, limit: int, root: Path | None = None) -> bytes:
    """Read a regular file of at most `limit` bytes; `root` is that of `open_regular`.

    Raises:
        FormatError: there is something else than a regular file, or the file is larger.
        OSError: there is nothing, or it cannot be read.
    """
    with open_regular(path, root) as file:
        content = file.read(limit + 1)
        if len(content) > limit:
            raise FormatError(f"{path} has {os.fstat(file.fileno()).st_size} bytes, more than {limit}")
    return content


def copy_regular(path: Path, copy: Path) -> None:
    """Copy the content of a regular file.

    Raises:
        FormatError: there is something else than a regular file.
        OSError: there is nothing, or it cannot be read or written.
    """
    with open_regular(path) as source, open(copy, "wb") as target:
        shutil.copyfileobj(source, target)


def sha256_file(path: Path) -> str:
    """Return the sha256 of a regular file in hex, which the Hub shows for large files, too.

    Raises:
        FormatError: there is something else than a regular file.
        OSError: there is nothing, or it cannot be read.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_present(path: Path) -> bool:
    """Return whether there is anything of this name, be it a link that leads nowhere."""
    return os.path.lexists(path)


def is_regular(path: Path) -> bool:
    """Return whether there is a regular file, or a link to one that huggingface_hub's cache has made."""
    return path.is_file() and (not path.is_symlink() or cached_content(path) is not None)


def walk(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder, in no order; links to folders are not entered.

    Unlike ``Path.rglob`` it does not end in a RecursionError where folders nest without end. A folder that another
    process removes meanwhile has nothing in it.

    Raises:
        FormatError: folders nest deeper than `MAX_FOLDERS`.
    """
    pending = [(folder, 0)]
    while pending:
        parent, depth = pending.pop()
        if depth > MAX_FOLDERS:
            raise FormatError(f"{folder}: its folders nest deeper than {MAX_FOLDERS}")
        with contextlib.suppress(PermissionError, FileNotFoundError, NotADirectoryError), os.scandir(parent) as items:
            for item in items:
                path = parent / item.name
                yield path
                if item.is_dir(follow_symlinks=False):
                    pending.append((path, depth + 1))


def check_no_links(root: Path, relative: str) -> None:
    """Check that no part of a path below a folder is a link; the folder itself may be one.

    Raises:
        FormatError: a part is a link.
    """
    path = root
    for part in relative.split("/"):
        path = path / part
        if path.is_symlink() and cached_content(path) is None:
            raise FormatError(f"{path} is a symbolic link: put the files themselves there")


def _check_kind(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((words for is_kind, words in KINDS if is_kind(mode)), "no file")
    raise FormatError(f"{path} is {kind}: only regular files are read")


def cached_content(path: Path) -> Path | None:
    """Return the file that a link of huggingface_hub's cache stands for, or None for anything else.

    In the cache ``models--OWNER--NAME/snapshots/COMMIT/FILE`` is a link to ``models--OWNER--NAME/blobs/DIGEST``, which
    may be gone.
    """
    if not path.is_symlink():
        return None
    link = Path(os.path.realpath(path.parent)) / path.name
    for commit, snapshots in zip(link.parents, link.parents[1:], strict=False):
        repo = snapshots.parent
        if snapshots.name == SNAPSHOTS and CACHED_REPO.fullmatch(repo.name) and COMMIT.fullmatch(commit.name):
            content = Path(os.path.normpath((link.parent / link.readlink()).absolute()))
            is_block = content.parent == repo / BLOCKS and DIGEST.fullmatch(content.name)
            # the link may lead through others, and the content may be one itself
            if is_block and Path(os.path.realpath(link)) == content and not content.is_symlink():
                return content
    return None

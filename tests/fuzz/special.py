"""Things in the place of a file that are no regular files: links, pipes and folders."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

Special = Callable[[Path, Path], None]


def link(path: Path, sound: Path) -> None:
    """A link to a file that is sound; reading must not follow it."""
    path.symlink_to(sound)


def link_to_nothing(path: Path, sound: Path) -> None:
    path.symlink_to("nothing")


def link_to_itself(path: Path, sound: Path) -> None:
    path.symlink_to(path.name)


def link_to_folder(path: Path, sound: Path) -> None:
    path.symlink_to(sound.parent)


def pipe(path: Path, sound: Path) -> None:
    os.mkfifo(path)


def socket_file(path: Path, sound: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def folder(path: Path, sound: Path) -> None:
    path.mkdir()


SPECIAL: list[Special] = [link, link_to_nothing, link_to_itself, link_to_folder, pipe, socket_file, folder]

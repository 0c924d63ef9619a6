"""Only regular files are opened: no links but those of the Hub's cache, no pipes, no devices, no folders."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_metaprune.errors import FormatError
from hf_metaprune.files.reading import (
    check_no_links,
    check_regular,
    copy_regular,
    is_regular,
    open_regular,
    read_regular,
    sha256_file,
    walk,
)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text("secret")
    return path


def make_link(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def make_relative_link(path: Path, secret: Path) -> None:
    path.symlink_to(os.path.relpath(secret, path.parent))


def make_chain(path: Path, secret: Path) -> None:
    (path.parent / "next").symlink_to(secret)
    path.symlink_to("next")


def make_loop(path: Path, secret: Path) -> None:
    path.symlink_to(path.name)


def make_dangling_link(path: Path, secret: Path) -> None:
    path.symlink_to("nowhere")


def make_pipe(path: Path, secret: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path, secret: Path) -> None:
    os.chdir(path.parent)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


def make_folder(path: Path, secret: Path) -> None:
    path.mkdir()


KINDS: list[tuple[Callable[[Path, Path], None], str]] = [
    (make_link, "is a symbolic link"),
    (make_relative_link, "is a symbolic link"),
    (make_chain, "is a symbolic link"),
    (make_loop, "is a symbolic link"),
    (make_dangling_link, "is a symbolic link"),
    (make_pipe, "is a named pipe"),
    (make_socket, "is a socket"),
    (make_folder, "is a folder"),
]


@pytest.mark.parametrize(("make", "message"), KINDS)
def test_what_is_no_regular_file_is_refused_by_name(
    make: Callable[[Path, Path], None], message: str, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.json"
    make(path, secret)
    for read in (open_regular, check_regular, sha256_file, lambda p: read_regular(p, 100)):
        with pytest.raises(FormatError, match=message) as error:
            read(path)
        assert str(path) in str(error.value)
    with pytest.raises(FormatError, match=message):
        copy_regular(path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_device_is_refused() -> None:
    with pytest.raises(FormatError, match="/dev/zero is a device"):
        read_regular(Path("/dev/zero"), 100)


def test_a_link_that_takes_the_place_of_a_file_is_refused(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a file and its opening another process may replace it."""
    path = tmp_path / "config.json"
    path.write_text("{}")
    opening = os.open

    def replace_and_open(name: Path, flags: int) -> int:
        path.unlink()
        path.symlink_to(secret)
        return opening(name, flags)

    monkeypatch.setattr(os, "open", replace_and_open)
    with pytest.raises(FormatError, match="is a symbolic link"):
        open_regular(path)


def test_a_folder_that_goes_while_its_neighbors_are_read_has_nothing_in_it(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    seen = []
    for path in walk(tmp_path):
        seen.append(path.relative_to(tmp_path).as_posix())
        if path.name == "file":
            shutil.rmtree(tmp_path, ignore_errors=True)
    assert sorted(seen) in (["a", "a/file", "b"], ["a", "b", "b/file"])


def test_a_file_is_read_up_to_its_limit(secret: Path) -> None:
    assert read_regular(secret, 6) == b"secret"
    with pytest.raises(FormatError, match="has 6 bytes, more than 5"):
        read_regular(secret, 5)


DIGEST, COMMIT = "0a" * 32, "c0" * 20


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A file in the layout of huggingface_hub's cache, two folders below its commit."""
    repo = tmp_path / "hub" / "models--org--bank"
    (repo / "blobs").mkdir(parents=True)
    (repo / "blobs" / DIGEST).write_text("content")
    folder = repo / "snapshots" / COMMIT / "tasks" / "pets"
    folder.mkdir(parents=True)
    (folder / "config.json").symlink_to(f"../../../../blobs/{DIGEST}")
    return folder / "config.json"


def test_links_of_the_cache_are_followed(cached: Path, tmp_path: Path) -> None:
    assert read_regular(cached, 100) == b"content"
    (tmp_path / "bank").symlink_to(cached.parents[2])  # a user may give such a folder a name
    assert read_regular(tmp_path / "bank" / "tasks" / "pets" / "config.json", 100) == b"content"
    check_no_links(tmp_path / "bank", "tasks/pets/config.json")


def test_a_link_whose_content_is_gone_is_told(cached: Path) -> None:
    cached.resolve().unlink()
    with pytest.raises(FormatError, match="the cache has lost its content"):
        open_regular(cached)


@pytest.mark.parametrize("target", ["../../../../../../secret.txt", "../../../../refs/main", "../other.json"])
def test_other_links_in_the_cache_are_not(target: str, cached: Path, secret: Path) -> None:
    cached.unlink()
    cached.symlink_to(target)
    with pytest.raises(FormatError, match="is a symbolic link"):
        open_regular(cached)


@pytest.mark.parametrize("place", ["repo", "commit", "block"])
def test_folders_that_only_look_like_the_cache_are_not(place: str, cached: Path) -> None:
    """A folder of projects may have a snapshots/ beside a blobs/, too."""
    repo, names = cached.parents[4], {"repo": "models--org--bank", "commit": COMMIT, "block": DIGEST}
    names[place] = "mine"
    (repo / "blobs" / DIGEST).rename(repo / "blobs" / names["block"])
    (repo / "snapshots" / COMMIT).rename(repo / "snapshots" / names["commit"])
    link = repo / "snapshots" / names["commit"] / "tasks" / "pets" / "config.json"
    link.unlink()
    link.symlink_to(f"../../../../blobs/{names['block']}")
    moved = repo.rename(repo.with_name(names["repo"]))
    with pytest.raises(FormatError, match="is a symbolic link"):
        open_regular(moved / link.relative_to(repo))


def test_a_content_of_the_cache_is_no_link_itself(cached: Path, secret: Path) -> None:
    content = cached.parents[4] / "blobs" / DIGEST
    content.unlink()
    content.symlink_to(secret)
    with pytest.raises(FormatError, match="is a symbolic link"):
        open_regular(cached)


def test_a_link_of_the_cache_leads_through_no_other(cached: Path, secret: Path) -> None:
    """The parts ``..`` of a link count from where the links before them lead."""
    repo = cached.parents[4]
    other = repo.parent / "other"
    (other / "x" / "y").mkdir(parents=True)
    (other / "blobs").mkdir()
    (other / "blobs" / DIGEST).write_text("secret")
    (repo / "snapshots" / "through").symlink_to(other / "x" / "y")
    cached.unlink()
    cached.symlink_to(f"../../../through/../../blobs/{DIGEST}")
    assert cached.read_text() == "secret"
    assert not is_regular(cached)
    with pytest.raises(FormatError, match="is a symbolic link"):
        open_regular(cached)


def test_the_contents_of_the_cache_lie_in_it(cached: Path, secret: Path, tmp_path: Path) -> None:
    blobs = cached.parents[4] / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="is a symbolic link"):
        open_regular(cached)


def test_no_folder_below_a_root_is_a_link_while_a_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "bank" / "real").mkdir(parents=True)
    (tmp_path / "bank" / "real" / "config.json").write_text("content")
    (tmp_path / "bank" / "tasks").symlink_to("real")
    (tmp_path / "link").symlink_to("bank")  # a root may be one
    assert read_regular(tmp_path / "link" / "real" / "config.json", 100, tmp_path / "link") == b"content"
    with pytest.raises(FormatError, match="tasks is a link"):
        read_regular(tmp_path / "bank" / "tasks" / "config.json", 100, tmp_path / "bank")
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "bank" / "none" / "config.json", 100, tmp_path / "bank")


def test_no_part_of_a_path_below_a_folder_is_a_link(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "bank" / "real").mkdir(parents=True)
    (tmp_path / "bank" / "tasks").symlink_to(tmp_path / "bank" / "real")
    check_no_links(tmp_path / "bank", "real/pets")
    with pytest.raises(FormatError, match="tasks is a symbolic link"):
        check_no_links(tmp_path / "bank", "tasks/pets")

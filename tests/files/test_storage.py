"""Files are replaced whole: whoever reads meanwhile sees the old one or the new one."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from hf_metaprune.errors import FormatError, StorageError
from hf_metaprune.files import storage
from hf_metaprune.files.storage import check_writable, new_folder, read_json, write_bytes


def test_a_file_is_replaced_not_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "index"
    write_bytes(path, b"old" * 1000)
    with path.open("rb", buffering=0) as reader:  # sees what is on disk now
        first = reader.read(3)
        write_bytes(path, b"new")
        assert first + reader.read() == b"old" * 1000
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index"
    write_bytes(path, b"old")

    def refuse(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StorageError, match="full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(KeyError), new_folder(path) as work:
        (work / "a").write_text("a")
        assert not path.exists()
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with new_folder(path) as work:
        (work / "a").write_text("a")
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "a"]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_folder_is_replaced_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: bool) -> None:
    if not atomic:
        monkeypatch.setattr(storage, "_exchange", lambda *_: False)
    path = tmp_path / "model"
    for name in ("a", "b"):
        with new_folder(path, overwrite=True) as work:
            (work / name).write_text(name)
        assert [p.name for p in tmp_path.rglob("*")] == ["model", name]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take two steps")
def test_at_no_moment_is_there_no_folder(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).touch()
    assert storage._exchange(one, other)
    assert [p.name for p in one.iterdir()] == ["other"]
    assert not storage._exchange(one, tmp_path / "missing")


def test_what_dead_writers_left_goes_at_once_and_what_living_ones_write_stays(tmp_path: Path) -> None:
    for name in (".tmp-model-dead", ".tmp-models-dead"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with new_folder(tmp_path / "model") as first:
        with new_folder(tmp_path / "model") as second:
            assert first.exists()
            (second / "own").touch()
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([first.name, ".tmp-models-dead", "model"])
        (tmp_path / "model" / "own").unlink()


def test_a_folder_that_is_cleared_away_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, locks = tempfile.mkdtemp, []

    def make_and_lose(**options: Any) -> str:
        name = made(**options)
        if not locks:  # another process holds it to delete it
            locks.append(storage._lock_folder(Path(name)))
        return name

    monkeypatch.setattr(storage.tempfile, "mkdtemp", make_and_lose)
    with new_folder(tmp_path / "model") as work:
        assert len(list(tmp_path.glob(".tmp-model-*"))) == 2
        (work / "file").touch()
    assert (tmp_path / "model" / "file").exists()
    os.close(locks[0])


def test_what_living_writers_write_in_a_folder_is_not_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".tmp-trunk-dead").mkdir()
    (tmp_path / ".tmp-dead.part").touch()
    (tmp_path / ".tmp-link").symlink_to(tmp_path)
    file, path = storage._new_locked_file(tmp_path)
    with new_folder(tmp_path / "trunk") as work, file:
        storage.clear_all_unfinished(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([work, path])


def test_an_unfinished_folder_goes_however_deep_it_is(tmp_path: Path) -> None:
    (tmp_path / ".tmp-model-dead" / "/".join("a" * 60)).mkdir(parents=True)
    n_open = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    storage.clear_unfinished(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    assert not n_open or len(list(Path("/proc/self/fd").iterdir())) == n_open


def test_an_unfinished_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "file").touch()
    (tmp_path / ".tmp-model-x").symlink_to(tmp_path / "own")
    with new_folder(tmp_path / "model"):
        pass
    assert (tmp_path / "own" / "file").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_in_the_place_of_an_unfinished_folder_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".tmp-model-x")
    with new_folder(tmp_path / "model"):
        pass
    assert (tmp_path / "model").is_dir()
    assert storage._lock_folder(tmp_path / "model") is not None


def test_where_folders_cannot_be_locked_leftovers_go_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_lock_folder", lambda folder: None)
    for leftover in (tmp_path / ".tmp-model-old", tmp_path / ".tmp-model-recent"):
        leftover.mkdir()
        (leftover / "file").touch()
    for path in (tmp_path / ".tmp-model-old" / "file", tmp_path / ".tmp-model-old"):
        os.utime(path, (0, 0))
    with new_folder(tmp_path / "model"):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [".tmp-model-recent", "model"]


def hold_a_file(folder: str, ready: str) -> None:
    """Be another writer, in the middle of a file, until killed."""
    file, _ = storage._new_locked_file(Path(folder))
    file.write(b"half of it")
    file.flush()
    Path(ready).touch()
    threading.Event().wait(300)


def test_a_temporary_folder_goes_when_its_process_has_ended_or_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys; from hf_metaprune.files.storage import temporary_folder; folder = temporary_folder('mine-'); "
        "(folder / 'photo').touch(); print(folder, flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}

    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    killed, of_killed = start()
    killed.kill()
    killed.communicate()
    assert (of_killed / "photo").exists()
    living, of_living = start()
    assert not of_killed.exists()
    (tmp_path / "mine-being-made").mkdir()
    other, of_other = start()
    assert (of_living / "photo").exists() and (tmp_path / "mine-being-made").exists()
    assert of_living.stat().st_mode & 0o777 == 0o700
    for process, folder in ((living, of_living), (other, of_other)):
        process.communicate("")
        assert not folder.exists()


def test_the_unfinished_file_of_a_killed_writer_goes_with_the_next_one(tmp_path: Path) -> None:
    folder, ready = tmp_path / "model", tmp_path / "ready"
    folder.mkdir()
    writer = multiprocessing.get_context("spawn").Process(target=hold_a_file, args=(str(folder), str(ready)))
    writer.start()
    while not ready.exists() and writer.is_alive():
        writer.join(0.01)
    write_bytes(folder / "config.json", b"{}")
    assert len(list(folder.glob(".tmp-*"))) == 1  # its writer lives
    writer.kill()
    writer.join()
    check_writable(folder, overwrite={"config.json"})  # what is unfinished is in nobody's way
    write_bytes(folder / "model.onnx", b"onnx")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.onnx"]


def test_a_full_disk_is_told_of_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write .*/model/big: the disk is full"):  # noqa: SIM117
        with new_folder(tmp_path / "model") as work, storage.storage_errors(work / "big", "write"):
            raise OSError(errno.ENOSPC, "full")


def test_a_hub_id_where_a_folder_is_asked_for_is_told_what_to_do(tmp_path: Path) -> None:
    for missing, hint in ((Path("ann/mine"), "hf download ann/mine --local-dir mine"), (tmp_path / "mine", "")):
        with pytest.raises(FormatError, match="there is no folder") as error:
            read_json(missing / "config.json")
        assert hint in str(error.value)
        assert ("hf download" in str(error.value)) == bool(hint)

"""Files are replaced whole: whoever reads meanwhile sees the old one or the new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_metaprune.errors import StorageError
from hf_metaprune.storage import new_folder, write_bytes


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

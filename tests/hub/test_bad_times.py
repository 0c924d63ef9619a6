"""No network, and no room on the disk: everything that asks the Hub says so, and leaves nothing half done."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf_metaprune import Bank
from hf_metaprune.bank.publish import add_entries, publish_bank, remove_entries
from hf_metaprune.errors import HubUnreachableError, StorageError
from tests.hub import LoopbackHub, point_at
from tests.hub.fixtures import TOKEN

ASKING: dict[str, Callable[[Bank], object]] = {
    "read": lambda bank: Bank.from_hub("me/bank"),
    "search": lambda bank: Bank.from_search(bank),
    "publish": lambda bank: publish_bank(bank, "me/bank"),
    "add": lambda bank: add_entries("me/bank", {"new": next(iter(bank)).folder}),
    "remove": lambda bank: remove_entries("me/bank", ["x"]),
}


@pytest.mark.parametrize("what", ASKING)
def test_without_a_network_it_is_said(
    hub: LoopbackHub, bank: Bank, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nobody = "http://127.0.0.1:9"  # the port of "discard", where nothing listens
    point_at(SimpleNamespace(endpoint=nobody, storage_endpoint=nobody), monkeypatch, tmp_path / "home", TOKEN)
    with pytest.raises(HubUnreachableError, match="cannot be reached") as error:
        ASKING[what](bank)
    assert TOKEN not in str(error.value)


def test_a_mistyped_folder_is_told_without_the_clients_retries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9"
    point_at(SimpleNamespace(endpoint=nobody, storage_endpoint=nobody), monkeypatch, tmp_path / "home", TOKEN)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it was tried again"))
    with pytest.raises(HubUnreachableError, match="if me/bnak is meant as a folder, there is none"):
        Bank.from_hub("me/bnak")


def test_offline_mode_is_named(hub: LoopbackHub, bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for what, ask in ASKING.items():
        with pytest.raises(HubUnreachableError, match=r"offline mode is set \(HF_HUB_OFFLINE\)") as error:
            ask(bank)
        assert ("in the cache" in str(error.value)) == (what == "read")


def test_a_full_disk_is_said_and_leaves_no_file_that_is_taken_for_whole(
    hub: LoopbackHub, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import file_download

    publish_bank(bank, "me/bank")
    there = Bank.from_hub("me/bank")
    entry, fetch = next(iter(there)), file_download.http_get

    def full(url: str, temp_file: object, **options: object) -> None:
        temp_file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", full)
        with pytest.raises(StorageError, match=r"the disk is full.*HF_HOME"):
            entry.load_model()
    assert file_download.http_get is fetch
    entry.verify()
    assert entry.load_model().mask() == entry.mask

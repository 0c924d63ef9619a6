"""A bank is published with its trunk, and opened with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hf_metaprune import Bank
from hf_metaprune.bank import commits
from hf_metaprune.bank.publish import publish_bank
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import MetaPruneError
from tests.hub import LoopbackHub
from tests.hub.test_links import SECRET, link_to_secret, received
from tests.trunk.test_bank_trunk import OPTIONS, same, teach


def test_a_bank_is_published_with_its_trunk(hub: LoopbackHub, own_bank: Bank, task_data: TaskData) -> None:
    publish_bank(own_bank, "me/bank")
    trunk = teach(own_bank, task_data)
    assert publish_bank(Bank.open(own_bank.root), "me/bank").commits
    published = Bank.from_hub("me/bank")
    assert published.meta["format_version"] == 2
    assert published.trunk is not None and same(published.trunk, trunk)
    assert not publish_bank(Bank.open(own_bank.root), "me/bank").commits  # nothing is new
    teach(own_bank, task_data, replace(OPTIONS, lr=0.1))
    assert publish_bank(Bank.open(own_bank.root), "me/bank").commits
    again = Bank.from_hub("me/bank").trunk
    assert again is not None and not same(again, trunk)
    assert publish_bank(Bank.open(own_bank.root), "me/new").commits  # at once
    assert Bank.from_hub("me/new").trunk is not None


def test_a_link_in_a_trunk_is_not_published(hub: LoopbackHub, own_bank: Bank, task_data: TaskData) -> None:
    teach(own_bank, task_data)
    path = own_bank.root / "trunk" / "config.json"
    path.rename(own_bank.root / "elsewhere.json")
    path.symlink_to(own_bank.root / "elsewhere.json")
    with pytest.raises(MetaPruneError, match="is a symbolic link"):
        publish_bank(Bank.open(own_bank.root), "me/bank")
    assert not hub.has_repo("me/bank")


def edit_header(path: Path, change: Callable[[dict], object]) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    text = json.dumps(header).encode() if (text := change(header)) is None else text
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])  # type: ignore[arg-type]


def repeat_metadata(header: dict) -> bytes:
    return json.dumps(header).replace('"__metadata__": {', '"__metadata__": {"format": "' + SECRET + '", ').encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["__metadata__"].update(format=SECRET),
        lambda header: header["__metadata__"].update(labels=SECRET),
        lambda header: header["network.conv1.0.weight"].update(note=SECRET),
        repeat_metadata,
    ],
)
def test_nothing_in_the_header_of_a_trunk_is_published_but_ours(
    change: Callable[[dict], object], hub: LoopbackHub, own_bank: Bank, task_data: TaskData
) -> None:
    teach(own_bank, task_data)
    edit_header(own_bank.root / "trunk" / "model.safetensors", change)
    with pytest.raises(MetaPruneError, match=r"metadata|is there twice|cannot be read"):
        publish_bank(Bank.open(own_bank.root), "me/bank")
    assert SECRET.encode() not in received(hub)


def test_a_link_that_comes_in_while_a_trunk_is_published_is_not_followed(
    hub: LoopbackHub, own_bank: Bank, task_data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(own_bank, task_data)
    adding = commits._addition

    def link_and_add(path: str, content: bytes | Path) -> object:
        if path == "trunk/model.safetensors":
            link_to_secret(own_bank.root / "trunk" / "model.safetensors")
        return adding(path, content)

    monkeypatch.setattr(commits, "_addition", link_and_add)
    assert publish_bank(Bank.open(own_bank.root), "me/bank").commits
    assert SECRET.encode() not in received(hub)

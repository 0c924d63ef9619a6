"""A bank is published with its trunk, and opened with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hf_metaprune import Bank
from hf_metaprune.bank.publish import publish_bank
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import MetaPruneError
from tests.hub import LoopbackHub
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
    assert ("model", "me/bank") not in hub.store.repos

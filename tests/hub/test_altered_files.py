"""Files of a published bank that were altered since, or are altered while it is published again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_metaprune.bank import commits
from hf_metaprune.bank.bank import Bank
from hf_metaprune.bank.publish import publish_bank
from hf_metaprune.errors import MetaPruneError
from hf_metaprune.models.public_files import public_json
from tests.bank.edits import edit_json, first
from tests.hub import LoopbackHub
from tests.hub.test_links import SECRET, received


def masks_of(folder: Path, change: Callable[[dict], object]) -> None:
    masks = json.loads((folder / "config.json").read_text())["masks"]
    change(masks)
    edit_json(folder / "config.json", masks=masks)


ALTERATIONS: dict[str, Callable[[Path], object]] = {
    "bits": lambda folder: masks_of(folder, lambda masks: next(iter(masks.values())).update(bits=SECRET)),
    "layer": lambda folder: masks_of(folder, lambda masks: masks.update({SECRET: next(iter(masks.values()))})),
    "no mask": lambda folder: masks_of(folder, lambda masks: masks.update({next(iter(masks)): 5})),
    "labels": lambda folder: edit_json(folder / "config.json", id2label={"0": SECRET, "1": "b", "2": "c"}),
    "numbers": lambda folder: edit_json(folder / "config.json", id2label={"zero": "a", "1": "b", "2": "c"}),
    "method": lambda folder: edit_json(folder / "config.json", method="magnitude"),
    "base": lambda folder: edit_json(folder / "config.json", base_model={"sha256": "0" * 64}),
}


@pytest.mark.parametrize("options", [{}, {"delete": True}])
@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
def test_an_altered_config_is_not_published_again(
    hub: LoopbackHub, own_bank: Bank, alter: Callable[[Path], object], options: dict[str, Any]
) -> None:
    publish_bank(own_bank, "me/bank")
    before = hub.read_files("me/bank")
    alter(first(own_bank).folder)
    with pytest.raises(MetaPruneError, match=first(own_bank).id):
        publish_bank(Bank.open(own_bank.root), "me/bank", **options)
    assert SECRET.encode() not in received(hub)
    assert hub.read_files("me/bank") == before


def become_a_link(folder: Path) -> None:
    """Put a link in the place of an entry's folder, to a copy elsewhere."""
    shutil.copytree(folder, folder.parents[2] / "private")
    shutil.rmtree(folder)
    folder.symlink_to(folder.parents[2] / "private")


SWAPS: dict[str, Callable[[Path], object]] = {
    "link": become_a_link,
    "labels": lambda folder: edit_json(folder / "config.json", id2label={"0": SECRET, "1": "b", "2": "c"}),
}


@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
def test_what_is_altered_after_its_check_is_not_sent(
    hub: LoopbackHub, own_bank: Bank, monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path], object]
) -> None:
    folder = first(own_bank).folder

    def alter_and_read(path: Path, root: Path | None = None) -> bytes:
        if path == folder / "config.json" and not folder.is_symlink():
            swap(folder)
        return public_json(path, root)

    monkeypatch.setattr(commits, "public_json", alter_and_read)
    with pytest.raises(MetaPruneError, match=first(own_bank).id):
        publish_bank(own_bank, "me/bank")
    assert SECRET.encode() not in received(hub)
    assert "bank.json" not in hub.read_files("me/bank")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_json_lacks_are_not_published(hub: LoopbackHub, own_bank: Bank, number: str) -> None:
    path = own_bank.base_folder / "preprocessor_config.json"
    path.write_text('{"rescale_factor": ' + number + "}")
    with pytest.raises(MetaPruneError, match=r"preprocessor_config.json cannot be published"):
        publish_bank(Bank.open(own_bank.root), "me/bank")
    assert not hub.has_repo("me/bank")


def test_layers_that_the_base_lacks_are_not_published(hub: LoopbackHub, own_bank: Bank) -> None:
    bank = Bank.create(own_bank.root.parent / "empty", own_bank.base)
    edit_json(bank.root / "bank.json", layers={"/home/alice/x": 4})
    with pytest.raises(MetaPruneError, match="layers"):
        publish_bank(Bank.open(bank.root), "me/bank")
    assert not hub.has_repo("me/bank")

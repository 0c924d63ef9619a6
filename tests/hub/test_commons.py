"""A search of the Hub among many owners, some of whom mean no good, and with files that cannot be had."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from hf_metaprune import AdaptResult, Bank, MetaPruner
from hf_metaprune.bank.publish import publish_bank
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import HubError, HubUnreachableError
from tests.bank.edits import first
from tests.hub import Action, Call, Content, Drop, Header, LoopbackHub, Status
from tests.hub.edits import TINY, hub_cache


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 403, 404, 451])
def test_one_model_that_cannot_be_had_does_not_stop_the_others(
    hub: LoopbackHub, bank: Bank, result: AdaptResult, task: TaskData, tmp_path: Path, status: int
) -> None:
    folder = result.save_pretrained(tmp_path / "good")
    for repo_id in ("ada/pets", "bob/pets"):
        hub.put_folder(repo_id, folder)
    pruner = MetaPruner.from_search(bank)
    hub.faults.add(Status(status), path="ada/pets/resolve", times=1000)
    report = pruner.adapt(task, neighbors=1, **TINY).report
    assert [n["id"] for n in report.neighbors] == ["bob--pets"]
    (note,) = (note for note in report.notes if "ada--pets" in note)
    assert "write" not in note
    assert "local_files_only" not in note


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "words"), [(Status(500), "has trouble"), (Drop(), "connection was lost")])
def test_models_in_trouble_do_not_end_a_search_but_many_do(
    hub: LoopbackHub, bank: Bank, result: AdaptResult, task: TaskData, tmp_path: Path, fault: Action, words: str
) -> None:
    folder = result.save_pretrained(tmp_path / "good")
    for repo_id in ("ada/pets", "bob/pets"):
        hub.put_folder(repo_id, folder)
    pruner = MetaPruner.from_search(bank)
    hub.faults.add(fault, path="ada/pets/resolve", times=1000)
    report = pruner.adapt(task, neighbors=1, **TINY).report
    assert [n["id"] for n in report.neighbors] == ["bob--pets"]
    assert any("ada--pets" in note and words in note for note in report.notes)
    hub.put_files("ada/pets", {"notes.txt": b"a new commit"})
    commons = Bank.from_search(bank)
    assert list(commons.entries) == ["bob--pets"]
    assert words in commons.skip_reasons["ada/pets"]
    for n in range(4):
        hub.put_folder(f"me/m{n}", folder)
    hub.faults.add(fault, path="/resolve/", times=1000)
    with pytest.raises(HubUnreachableError, match=words):
        Bank.from_search(bank)


@pytest.mark.slow
def test_ones_own_models_vote_for_each_other(
    hub: LoopbackHub, bank: Bank, result: AdaptResult, task: TaskData, tmp_path: Path
) -> None:
    folder = result.save_pretrained(tmp_path / "good")
    for n in range(3):
        hub.put_folder(f"me/m{n}", folder)
    pruner = MetaPruner.from_search(bank)
    assert len(pruner.adapt(task, neighbors=3, **TINY).report.neighbors) == 3
    hub.put_folder("bob/m", folder)
    report = MetaPruner.from_search(bank).adapt(task, neighbors=3, **TINY).report
    assert sorted(n["id"] for n in report.neighbors) == ["bob--m", "me--m0"]
    assert any("one owner has at most 1 of the votes (votes_per_owner)" in note for note in report.notes)


@pytest.mark.slow
def test_many_models_of_one_owner_do_not_fill_the_list(
    hub: LoopbackHub, bank: Bank, result: AdaptResult, tmp_path: Path
) -> None:
    folder = result.save_pretrained(tmp_path / "good")
    for repo_id in [f"aaa/spam{n}" for n in range(6)] + ["bob/pets", "eve/pets", "zoe/pets"]:
        hub.put_folder(repo_id, folder)
    owners = sorted(e.owner for e in Bank.from_search(bank, limit=5))
    assert owners == ["aaa", "aaa", "bob", "eve", "zoe"]
    assert len(Bank.from_search(bank, limit=5, trusted=("aaa",))) == 5
    assert {e.owner for e in Bank.from_search(bank, limit=5, trusted=("aaa",))} == {"aaa"}
    assert len(Bank.from_search(bank, limit=5, author="aaa")) == 5


@pytest.mark.slow
def test_a_list_that_goes_on_elsewhere_does_not_get_the_token(
    hub: LoopbackHub, bank: Bank, result: AdaptResult, tmp_path: Path
) -> None:
    hub.put_folder("ada/pets", result.save_pretrained(tmp_path / "good"))
    hub.faults.add(Header({"Link": f'<{hub.storage_endpoint}/evil>; rel="next"'}), path="/api/models")
    with pytest.raises(HubError, match="goes on at another address"):
        Bank.from_search(bank)
    assert hub.count(host="storage", path="/evil") == 0


@pytest.mark.parametrize("value", [b"1" * 5000, b"[" * 100_000 + b"]" * 100_000])
def test_a_card_that_no_parser_reads_takes_no_other_out_of_the_list(
    value: bytes, hub: LoopbackHub, bank: Bank, result: AdaptResult, tmp_path: Path
) -> None:
    hub.put_folder("ada/pets", result.save_pretrained(tmp_path / "good"))
    bad = b'{"id": "eve/x", "cardData": {"tags": ["],[", "\\""], "n": ' + value + b"}}"
    hub.faults.add(
        Content(lambda page: page.replace(b"[", b"[" + bad + b", ", 1)[:-1] + b", " + bad + b"]"), path=r"/api/models\?"
    )
    assert list(Bank.from_search(bank).entries) == ["ada--pets"]


@pytest.mark.parametrize(
    "page",
    [
        *(b'{"error": "busy"}', b"<html>", b"", b'[{"id": "ada/pets"}', b'[{"id": "ada/pets"},'),
        pytest.param(b'["' + b'\\"' * 200_000, id="a string without an end, in which each quote might begin one"),
        pytest.param(b'["' + b'\\"' * 200_000 + b"\\", id="the same before a last backslash"),
        pytest.param(b"[" + b"{}, " * 20_000 + b"1" * 5000 + b"]", id="many items and a number too long to parse"),
    ],
)
def test_a_page_that_is_no_list_is_an_error(page: bytes, hub: LoopbackHub, bank: Bank) -> None:
    hub.faults.add(Content(page), path=r"/api/models\?")
    with pytest.raises(HubError, match="malformed"):
        Bank.from_search(bank)


def test_a_header_is_asked_for_again_and_not_remembered_wrong(
    hub: LoopbackHub, bank: Bank, result: AdaptResult, tmp_path: Path
) -> None:
    hub.put_folder("ada/pets", result.save_pretrained(tmp_path / "good"))
    hub.faults.add(Status(429, headers={"Retry-After": "1"}), method="GET", path="model.safetensors")
    assert list(Bank.from_search(bank).entries) == ["ada--pets"]
    hub.put_files("ada/pets", {"notes.txt": b"a new commit"})
    hub.faults.add(Content(b"<html>Log in to the hotel's network</html>"), method="GET", host="storage")
    assert "cannot be read" in Bank.from_search(bank).skip_reasons["ada/pets"]
    assert list(Bank.from_search(bank).entries) == ["ada--pets"]


@pytest.mark.slow
def test_one_entry_in_trouble_does_not_stop_the_others(hub: LoopbackHub, own_bank: Bank, task: TaskData) -> None:
    publish_bank(own_bank, "me/bank")
    shutil.rmtree(hub_cache(), ignore_errors=True)
    victim = first(own_bank)
    hub.faults.add(Status(500), path=f"{victim.path}/model.safetensors", times=10_000)
    report = MetaPruner.from_hub("me/bank").adapt(task, neighbors=1, **TINY).report
    assert any(victim.id in note and "has trouble" in note for note in report.notes)
    shutil.rmtree(hub_cache(), ignore_errors=True)
    hub.faults.clear()
    hub.faults.add(Status(500), path="/tasks/", times=10_000)
    with pytest.raises(HubError, match=r"has trouble"):
        MetaPruner.from_hub("me/bank").adapt(task, neighbors=1, **TINY)


@pytest.mark.slow
@pytest.mark.parametrize("commons", [False, True])
def test_files_come_several_at_a_time(
    hub: LoopbackHub, own_bank: Bank, result: AdaptResult, tmp_path: Path, commons: bool
) -> None:
    publish_bank(own_bank, "me/bank")
    folder = result.save_pretrained(tmp_path / "good")
    for repo_id in ("ada/pets", "bob/pets"):
        hub.put_folder(repo_id, folder)
    remote = Bank.from_search(own_bank) if commons else Bank.from_hub("me/bank")
    entries = list(remote)[:2]
    shutil.rmtree(hub_cache(), ignore_errors=True)
    together = threading.Barrier(2, timeout=60)
    hub.faults.add(Call(lambda: together.wait()), method="GET", host="storage", times=2)
    remote.fetch(entries)  # one at a time, the first would wait in vain for the second
    assert not together.broken

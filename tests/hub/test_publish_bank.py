"""Publishing a bank: only what changed, whole at every commit, races, cuts, and changes without a download."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from hf_metaprune import Bank
from hf_metaprune.bank import commits, publish
from hf_metaprune.bank.publish import add_entries, publish_bank, remove_entries
from hf_metaprune.bank.validation import validate_bank
from hf_metaprune.errors import (
    BankError,
    BaseMismatchError,
    FormatError,
    HubError,
    MetaPruneError,
    PublishConflictError,
)
from hf_metaprune.hub import repo as repo_module
from hf_metaprune.reporting.card import split_card
from tests.hub import Call, Drop, LoopbackHub, Status


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repo_module, "FIRST_WAIT", 0.0)


def read_index(hub: LoopbackHub, repo_id: str, tmp_path: Path, revision: str = "main") -> dict[str, str]:
    """Ids and paths of the published index."""
    (tmp_path / "index.parquet").write_bytes(hub.read_files(repo_id, revision)["index.parquet"])
    rows = pq.read_table(tmp_path / "index.parquet").to_pylist()
    return {row["id"]: row["path"] for row in rows}


def assert_whole(hub: LoopbackHub, repo_id: str, tmp_path: Path) -> None:
    """At every commit, each row of the index has its files, and each entry's files a row."""
    for commit in hub.history(repo_id):
        files = hub.read_files(repo_id, commit.oid)
        if "index.parquet" not in files:
            assert not any(name.startswith("tasks/") for name in files)
            continue
        rows = read_index(hub, repo_id, tmp_path, commit.oid)
        assert {f"{path}/model.safetensors" for path in rows.values()} <= set(files)
        assert {name.rpartition("/")[0] for name in files if name.startswith("tasks/")} == set(rows.values())
        assert {"bank.json", "base/model.safetensors", "base/config.json"} <= set(files)


def test_the_published_bank_is_the_bank(hub: LoopbackHub, bank: Bank, tmp_path: Path) -> None:
    publication = publish_bank(bank, "me/bank", license="apache-2.0")
    assert (sorted(publication.added), publication.removed, len(publication.commits)) == (sorted(bank.entries), [], 1)
    assert publication.url == f"{hub.endpoint}/me/bank"
    assert_whole(hub, "me/bank", tmp_path)
    files = hub.read_files("me/bank")
    for entry in bank:
        for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
            assert files[f"{entry.path}/{name}"] == (entry.folder / name).read_bytes()
    assert not [name for name in files if name.startswith((".locks", ".rejected"))]
    there = Bank.from_hub("me/bank")
    assert validate_bank(there) == []
    assert [e.row() for e in there] == [e.row() for e in bank]
    data, text = split_card(files["README.md"].decode())
    assert (data["license"], data["metaprune"]["entries"], "metaprune-bank" in data["tags"]) == ("apache-2.0", 4, True)
    assert all(entry.id in text for entry in bank)
    assert str(tmp_path) not in b"".join(files.values()).decode("latin-1")


def test_only_what_changed_is_sent(hub: LoopbackHub, own_bank: Bank, tmp_path: Path) -> None:
    publish_bank(own_bank, "me/bank")
    hub.reset_log()
    assert publish_bank(own_bank, "me/bank").commits == []
    assert hub.count("PUT") == hub.count("POST", path="/commit/") == 0
    assert hub.count("POST", path="/paths-info/") == 1  # what is there is asked once
    ids = list(own_bank.entries)
    with torch.no_grad():
        model = own_bank[ids[0]].load_model()
        model.classifier.bias += 1
    own_bank.remove(ids[0])
    own_bank.add(model, ids[0])
    hub.reset_log()
    publication = publish_bank(own_bank, "me/bank")
    assert (publication.added, len(publication.commits)) == ([ids[0]], 1)
    assert hub.count("PUT") == 2  # the weights and the index
    assert_whole(hub, "me/bank", tmp_path)
    assert validate_bank(Bank.from_hub("me/bank")) == []


@pytest.mark.slow
def test_large_banks_are_published_in_many_commits(
    hub: LoopbackHub, bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "COMMIT_ENTRIES", 1)
    assert len(publish_bank(bank, "me/bank").commits) == 4
    assert_whole(hub, "me/bank", tmp_path)
    monkeypatch.setattr(commits, "COMMIT_ENTRIES", 250)
    monkeypatch.setattr(commits, "COMMIT_BYTES", 2 * max(e.size for e in bank))
    assert len(publish_bank(bank, "me/other").commits) == 2


@pytest.mark.slow
@pytest.mark.parametrize("n_commits", [1, 2, 3])
def test_a_publication_that_was_cut_goes_on(
    hub: LoopbackHub, bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_commits: int
) -> None:
    monkeypatch.setattr(commits, "COMMIT_ENTRIES", 1)
    hub.faults.add(Status(500), method="POST", path="/commit/", skip=n_commits, times=1)
    with pytest.raises(HubError, match="trouble.*500"):
        publish_bank(bank, "me/bank")
    assert len(Bank.from_hub("me/bank")) == n_commits
    assert_whole(hub, "me/bank", tmp_path)
    publication = publish_bank(bank, "me/bank")
    assert (len(publication.added), len(publication.commits)) == (4 - n_commits, 4 - n_commits)
    assert validate_bank(Bank.from_hub("me/bank")) == []


@pytest.mark.slow
def test_an_answer_that_was_lost_does_no_harm(hub: LoopbackHub, bank: Bank, tmp_path: Path) -> None:
    hub.faults.add(Drop(done=True), method="POST", path="/commit/")
    with pytest.raises(HubError, match="connection was lost"):
        publish_bank(bank, "me/bank")
    assert publish_bank(bank, "me/bank").commits == []
    assert_whole(hub, "me/bank", tmp_path)


@pytest.mark.slow
def test_two_publishers_at_once_lose_nothing(hub: LoopbackHub, bank: Bank, own_bank: Bank, tmp_path: Path) -> None:
    ids = list(bank.entries)
    first, second = (shutil.copytree(own_bank.root, tmp_path / name) for name in ("first", "second"))
    for folder, part in ((first, ids[:2]), (second, ids[2:])):
        for i in part:
            Bank.open(folder).remove(i)
    hub.faults.add(Call(lambda: publish_bank(Bank.open(second), "me/bank")), method="POST", path="/commit/")
    publish_bank(Bank.open(first), "me/bank")
    assert hub.count(status=412) == 1
    assert sorted(read_index(hub, "me/bank", tmp_path)) == sorted(ids)
    assert_whole(hub, "me/bank", tmp_path)


@pytest.mark.slow
def test_many_publishers_at_once(hub: LoopbackHub, bank: Bank, own_bank: Bank, tmp_path: Path) -> None:
    ids, failures = list(bank.entries), []
    publish_bank(own_bank, "me/bank")

    def remove(entry_id: str) -> None:
        try:
            remove_entries("me/bank", [entry_id])
        except MetaPruneError as error:
            failures.append(error)

    threads = [threading.Thread(target=remove, args=(i,)) for i in ids[:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(read_index(hub, "me/bank", tmp_path)) == ids[3:]
    assert_whole(hub, "me/bank", tmp_path)


def test_who_is_always_overtaken_is_told(hub: LoopbackHub, bank: Bank) -> None:
    hub.put_files("me/bank", {"README.md": b""})
    overtake = Call(lambda: hub.put_files("me/bank", {"README.md": str(len(hub.history("me/bank"))).encode()}))
    hub.faults.add(overtake, method="POST", path="/commit/", times=100)
    with pytest.raises(PublishConflictError, match="by others all the time"):
        publish_bank(bank, "me/bank")


def test_entries_are_added_and_removed_without_the_weights_of_others(
    hub: LoopbackHub, own_bank: Bank, tmp_path: Path
) -> None:
    ids = list(own_bank.entries)
    new = shutil.copytree(own_bank[ids[0]].folder, tmp_path / "new-entry")
    publish_bank(own_bank, "me/bank")
    hub.reset_log()
    publication = add_entries("me/bank", {"new-entry": new})
    assert (publication.added, len(publication.commits)) == (["new-entry"], 1)
    assert hub.count("GET", path="safetensors") == 0
    assert add_entries("me/bank", {"new-entry": new}).commits == []  # again: it is there
    publication = remove_entries("me/bank", [ids[1], "new-entry"])
    assert (publication.removed, len(publication.commits)) == (sorted([ids[1], "new-entry"]), 1)
    assert hub.count("GET", path="safetensors") == 0
    assert sorted(Bank.from_hub("me/bank").entries) == sorted(set(ids) - {ids[1]})
    assert_whole(hub, "me/bank", tmp_path)
    with pytest.raises(BankError, match="no entry 'nobody'"):
        remove_entries("me/bank", ["nobody"])
    other = shutil.copytree(own_bank[ids[2]].folder, tmp_path / "other")
    with pytest.raises(BankError, match=f"another entry '{ids[0]}'"):
        add_entries("me/bank", {ids[0]: other})


@pytest.mark.slow
def test_an_id_that_is_taken_in_the_meantime(hub: LoopbackHub, own_bank: Bank, tmp_path: Path) -> None:
    ids = list(own_bank.entries)
    one, two = (shutil.copytree(own_bank[i].folder, tmp_path / i) for i in ids[:2])
    publish_bank(own_bank, "me/bank")
    hub.faults.add(Call(lambda: add_entries("me/bank", {"new": two})), method="POST", path="/commit/")
    with pytest.raises(BankError, match="another entry 'new'"):
        add_entries("me/bank", {"new": one})
    assert Bank.from_hub("me/bank")["new"].sha256 == own_bank[ids[1]].sha256


@pytest.mark.slow
def test_sync_removes_what_the_folder_lacks(hub: LoopbackHub, own_bank: Bank, tmp_path: Path) -> None:
    publish_bank(own_bank, "me/bank")
    entry_id = next(iter(own_bank.entries))
    own_bank.remove(entry_id)
    assert publish_bank(own_bank, "me/bank").commits == []
    publication = publish_bank(own_bank, "me/bank", delete=True)
    assert (publication.added, publication.removed) == ([], [entry_id])
    assert_whole(hub, "me/bank", tmp_path)


def test_sync_makes_no_repo(hub: LoopbackHub, bank: Bank) -> None:
    with pytest.raises(HubError, match="no such repo"):
        publish_bank(bank, "me/bnak", delete=True)
    hub.put_files("me/empty", {"notes.txt": b"x"})
    with pytest.raises(BankError, match="holds no bank"):
        publish_bank(bank, "me/empty", delete=True)
    assert list(hub.store.repos) == [("models", "me/empty")]


@pytest.mark.slow
def test_a_pull_request_leaves_main_as_it_is(hub: LoopbackHub, own_bank: Bank, tmp_path: Path) -> None:
    hub.add_user("lab", token="hf_token_of_lab")
    publish_bank(own_bank, "lab/bank", token="hf_token_of_lab")
    new = shutil.copytree(own_bank[next(iter(own_bank.entries))].folder, tmp_path / "new-entry")
    hub.put_files("lab/bank", {"README.md": b"---\ntags: [x]\n---\nOurs.\n"})
    assert publish_bank(own_bank, "lab/bank", create_pr=True).commits == []  # nobody asked for a card alone
    with pytest.raises(HubError, match=r"token may not do that.*--create-pr"):
        add_entries("lab/bank", {"new-entry": new})
    before = hub.read_files("lab/bank")
    publication = add_entries("lab/bank", {"new-entry": new}, create_pr=True)
    assert (publication.added, publication.url) == (["new-entry"], f"{hub.endpoint}/lab/bank/discussions/1")
    assert hub.read_files("lab/bank") == before
    assert "new-entry" in Bank.from_hub("lab/bank", revision="refs/pr/1").entries
    hub.put_files("lab/bank", {"notes.txt": b"main goes on"})
    publication = publish_bank(own_bank, "lab/bank", revision="refs/pr/1", delete=True)  # one changes one's mind
    assert (publication.removed, publication.url) == (["new-entry"], f"{hub.endpoint}/lab/bank/discussions/1")
    assert "notes.txt" not in hub.read_files("lab/bank", "refs/pr/1")
    with pytest.raises(HubError, match="no such revision"):
        publish_bank(own_bank, "lab/bank", revision="refs/pr/7")
    entry_id = next(iter(own_bank.entries))
    assert remove_entries("lab/bank", [entry_id], create_pr=True).url.endswith("/discussions/2")
    assert entry_id in Bank.from_hub("lab/bank").entries
    assert entry_id not in Bank.from_hub("lab/bank", revision="refs/pr/2").entries


def test_each_entry_is_checked_once(hub: LoopbackHub, own_bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[str] = []
    check = publish.check_entry
    monkeypatch.setattr(publish, "check_entry", lambda bank, entry: checks.append(entry.id) or check(bank, entry))
    publish_bank(own_bank, "me/bank")
    assert sorted(checks) == list(own_bank.entries)
    publish_bank(own_bank, "me/bank")
    assert len(checks) == len(own_bank)


def test_damaged_entries_are_not_published(hub: LoopbackHub, own_bank: Bank) -> None:
    entry = next(iter(own_bank))
    path = entry.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BankError, match=rf"{entry.id} cannot be published"):
        publish_bank(own_bank, "me/bank")
    assert hub.count("POST", path="/commit/") == 0


def test_an_unchanged_entry_whose_files_are_gone_is_said(hub: LoopbackHub, own_bank: Bank) -> None:
    publish_bank(own_bank, "me/bank")
    entry = next(iter(own_bank))
    shutil.rmtree(entry.folder)
    for delete in (False, True):
        with pytest.raises(BankError, match=rf"{entry.id} is damaged: .* is missing; restore its files"):
            publish_bank(own_bank, "me/bank", delete=delete)
    own_bank.remove(entry.id)
    assert publish_bank(own_bank, "me/bank", delete=True).removed == [entry.id]


def test_repos_that_hold_something_else_are_left_alone(hub: LoopbackHub, bank: Bank, own_bank: Bank) -> None:
    hub.put_files("me/model", {"config.json": b"{}"})
    with pytest.raises(BankError, match="holds a model, not a bank"):
        publish_bank(bank, "me/model")
    publish_bank(bank, "me/bank")
    meta = json.loads((own_bank.root / "bank.json").read_text())
    meta["base_model"]["sha256"] = "0" * 64
    (own_bank.root / "bank.json").write_text(json.dumps(meta))
    with pytest.raises(BaseMismatchError, match="bank of another base"):
        publish_bank(Bank.open(own_bank.root), "me/bank")
    with pytest.raises(BankError, match="holds no bank"):
        remove_entries("me/model2" if hub.put_files("me/model2", {"x": b""}) else "", ["a"])


def test_columns_of_other_programs_are_kept(hub: LoopbackHub, own_bank: Bank, tmp_path: Path) -> None:
    publish_bank(own_bank, "me/bank")
    (tmp_path / "index.parquet").write_bytes(hub.read_files("me/bank")["index.parquet"])
    table = pq.read_table(tmp_path / "index.parquet")
    table = table.append_column("stars", [list(range(table.num_rows))])
    pq.write_table(table, tmp_path / "index.parquet")
    hub.put_files("me/bank", {"index.parquet": (tmp_path / "index.parquet").read_bytes()})
    ids = list(own_bank.entries)
    remove_entries("me/bank", [ids[0]])
    (tmp_path / "index.parquet").write_bytes(hub.read_files("me/bank")["index.parquet"])
    rows = pq.read_table(tmp_path / "index.parquet")
    assert rows["stars"].to_pylist() == [1, 2, 3]
    assert Bank.from_hub("me/bank").name == own_bank.name


@pytest.mark.parametrize("path", [".", "base", "tasks", "tasks/../base", "tasks//x"])
def test_a_row_that_leads_astray_deletes_nothing(hub: LoopbackHub, own_bank: Bank, tmp_path: Path, path: str) -> None:
    publish_bank(own_bank, "me/bank")
    (tmp_path / "index.parquet").write_bytes(hub.read_files("me/bank")["index.parquet"])
    table = pq.read_table(tmp_path / "index.parquet")
    paths = [path, *table["path"].to_pylist()[1:]]
    pq.write_table(table.set_column(table.schema.get_field_index("path"), "path", [paths]), tmp_path / "index.parquet")
    hub.put_files("me/bank", {"index.parquet": (tmp_path / "index.parquet").read_bytes()})
    before = hub.read_files("me/bank")
    with pytest.raises(FormatError, match="no place for one"):
        remove_entries("me/bank", [next(iter(own_bank.entries))])
    assert hub.read_files("me/bank") == before


@pytest.mark.slow
def test_sketches_that_were_made_later_are_sent_alone(hub: LoopbackHub, own_bank: Bank) -> None:
    first, *others = own_bank
    sketches = {e.id: e.sketch for e in own_bank}
    own_bank.update_index({e.id: replace(e, sketch=None) for e in own_bank})
    publish_bank(own_bank, "me/bank")
    before = hub.read_files("me/bank")
    own_bank.update_index({e.id: replace(e, sketch=sketches[e.id]) for e in others})
    assert publish_bank(own_bank, "me/bank").added == [e.id for e in others]
    after = hub.read_files("me/bank")
    assert {path for path in after if after[path] != before.get(path)} == {"index.parquet"}
    assert {e.id: e.sketch for e in Bank.from_hub("me/bank")} == sketches | {first.id: None}
    own_bank.update_index({e.id: replace(e, sketch=None) for e in own_bank})
    assert publish_bank(own_bank, "me/bank").commits == []  # nothing that is there is taken away

"""What strangers may try through the Hub, and what must not reach it: whole attacks, from their files to their aim."""

from __future__ import annotations

import json
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file, save_file

from hf_metaprune import AdaptResult, Bank, MetaPruner
from hf_metaprune.bank import folders
from hf_metaprune.bank.publish import add_entries, publish_bank, remove_entries
from hf_metaprune.bank.validation import repair_index, validate_bank
from hf_metaprune.cards.card import split
from hf_metaprune.errors import BankError, FormatError, HubError, MetaPruneError, OptionError
from hf_metaprune.models.base import sha256_file
from hf_metaprune.report import AdaptReport
from hf_metaprune.task import TaskData
from tests.bank.edits import edit_index, edit_json, first
from tests.conftest import make_base
from tests.hub import Call, Content, Header, LoopbackHub, Status

TINY = {"steps": 1, "batch_size": 8, "eval_steps": (0,), "precision": "fp32", "by": "leep"}


@pytest.fixture
def task(task_data: TaskData) -> TaskData:
    return task_data.select((0, 1, 2), seed=0)


@pytest.fixture
def result(bank: Bank, task: TaskData) -> AdaptResult:
    return MetaPruner(bank).adapt(task, neighbours=2, **TINY)


def put_index(hub: LoopbackHub, tmp_path: Path, change: Any) -> None:
    """Change the rows of the published index as a pull request might."""
    path = tmp_path / "index.parquet"
    path.write_bytes(hub.read_files("me/bank")["index.parquet"])
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    hub.put_files("me/bank", {"index.parquet": path.read_bytes()})


def everything(hub: LoopbackHub, repo_id: str) -> str:
    return b"\n".join(hub.read_files(repo_id).values()).decode("latin-1")


def test_no_path_of_this_machine_is_published(hub: LoopbackHub, result: AdaptResult, tmp_path: Path) -> None:
    home = tmp_path / "Alice Smith"
    result.report.notes = [f"left out entry x: {home}/model.safetensors was altered", "plain"]
    result.report.skipped_images = [f"cat/grandma.jpg: cannot identify image file '{home}/cat/grandma.jpg'"]
    result.push_to_hub("me/pets")
    public = everything(hub, "me/pets")
    for private in ("Alice", "Smith", str(tmp_path), "grandma"):
        assert private not in public
    report = json.loads(hub.read_files("me/pets")["report.json"])
    told = ["2 notes: see the report where it was made", "1 unreadable image: see the report where it was made"]
    assert report["notes"] == told
    assert "Smith" in result.report.notes[0]  # one's own report tells all


def test_an_entry_that_shares_anothers_place_takes_nothing_along(
    hub: LoopbackHub, own_bank: Bank, tmp_path: Path
) -> None:
    publish_bank(own_bank, "me/bank")
    victim = first(own_bank)
    put_index(hub, tmp_path, lambda rows: rows.append(rows[0] | {"id": "zzz"}))
    with pytest.raises(FormatError, match=r"another entry lies in .* too"):
        remove_entries("me/bank", ["zzz"])
    assert f"{victim.path}/model.safetensors" in hub.read_files("me/bank")
    there = Bank.from_hub("me/bank")
    assert ("zzz" not in there, victim.id in there) == (True, True)
    assert "lies where" in next(iter(there.left_out.values()))


def test_an_entry_named_like_a_shard_goes_into_one(own_bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    model = first(own_bank).load_model()
    assert own_bank.add(model, "69").path.count("/") == 2
    monkeypatch.setattr(folders, "SHARD_ABOVE", 0)
    own_bank.add(model, "victim")
    edit_index(own_bank, path="tasks/" + own_bank["victim"].path.split("/")[1])  # as a foolish program might
    with pytest.raises(FormatError, match=r"another entry lies"):
        own_bank.remove(first(own_bank).id)
    assert own_bank["victim"].folder.exists()


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"x" * 1000},
        {"config.json": b"not json"},
        {"pytorch_model.bin": b"x"},
        {"model_index.json": b"{}", "unet/diffusion_pytorch_model.safetensors": b"x", "accuracy.png": b"mine"},
        {"model.keras": b"x"},
        {"preprocessor_config.json": b"{}", "model.npz": b"x"},
        {"sub/a.safetensors": b"x"},
    ],
)
def test_what_others_have_is_not_written_over(hub: LoopbackHub, result: AdaptResult, bank: Bank, files: dict) -> None:
    hub.put_files("me/bert", files | {"README.md": b"My precious BERT"})
    before = hub.read_files("me/bert")
    with pytest.raises(HubError, match="holds something else"):
        result.push_to_hub("me/bert")
    with pytest.raises(BankError, match="holds something else|holds a model"):
        publish_bank(bank, "me/bert")
    assert hub.read_files("me/bert") == before
    hub.put_files("me/new", {"README.md": b"Soon.", "LICENSE": b"MIT"})
    result.push_to_hub("me/new")


def test_a_path_cannot_bring_markup_into_a_card(
    hub: LoopbackHub, own_bank: Bank, task: TaskData, tmp_path: Path
) -> None:
    publish_bank(own_bank, "me/bank")
    path = 'tasks/x) <b>PWNED</b> <a href="https&#58;&#47;&#47;evil.com">weights</a> [y](z'
    put_index(hub, tmp_path, lambda rows: rows[0].update(path=path))
    pruner = MetaPruner.from_hub("me/bank")
    assert len(pruner.bank) == 3
    assert "characters" in next(iter(pruner.bank.left_out.values()))
    result = pruner.adapt(task, neighbours=2, **TINY)
    result.report.neighbours[0]["path"] = path  # whatever way it came
    result.push_to_hub("me/pets")
    text = split(hub.read_files("me/pets")["README.md"].decode())[1]
    assert not re.search(r"(?<!\\)(<b>|<a |\]\(z)", text)


def test_a_report_cannot_bring_markup_into_a_card(hub: LoopbackHub, result: AdaptResult, tmp_path: Path) -> None:
    bad = "<img src=x onerror=alert(1)> [click](https://evil.com)"
    folder = result.save_pretrained(tmp_path / "model")
    for changes in (
        {"options": {"steps": bad, bad: 1, "by": bad}},
        {"bank": {"name": "x", "repo_id": "me/bank", "revision": bad}},
        {"seconds": {bad: 1.0}},
        {"versions": {bad: bad}},
    ):
        edit_json(folder / "report.json", **changes)
        report = AdaptReport.load(folder / "report.json")
        shown = AdaptResult(result.model, result.preprocessing, report, result.device)
        shown.push_to_hub("me/pets")
        for name in ("README.md", "report.md"):
            text = hub.read_files("me/pets")[name].decode()
            assert not re.search(r"(?<!\\)(<img|\[click\])", text), (name, changes)
    for changes in ({"options": {"steps": {"a": [bad]}}}, {"seconds": {"a": bad}}, {"bank": {"name": {"x": 1}}}):
        edit_json(folder / "report.json", **changes)
        with pytest.raises(FormatError, match="is not a report"):
            AdaptReport.load(folder / "report.json")


def another_network(folder: Path, scratch: Path) -> None:
    """Make a model one of another network that names the same base: its stem is wider."""
    from hf_metaprune.models.base import BaseModel
    from hf_metaprune.models.configuration import MetaPrunedConfig
    from hf_metaprune.models.saving import save_model

    config = json.loads((folder / "config.json").read_text())
    base = BaseModel.load(make_base(scratch / "base"))
    base.model_args = base.model_args | {"stem_width": 12}
    base.network = base.family.build(base.architecture, base.model_args, 7)
    made = MetaPrunedConfig.from_dict(config)
    made.base_model = made.base_model | {"model_args": base.model_args}
    save_model(base.slice(made), folder, "float16")


def test_a_model_of_another_network_does_not_stop_the_others(
    hub: LoopbackHub, bank: Bank, own_bank: Bank, result: AdaptResult, task: TaskData, tmp_path: Path
) -> None:
    folder = result.save_pretrained(tmp_path / "good")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.put_files("me/good", files)
    another_network(folder, tmp_path)
    data, text = split((folder / "README.md").read_text())
    weights = folder / "model.safetensors"
    data["metaprune"] |= {"sha256": sha256_file(weights), "size": weights.stat().st_size}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(data)}---\n{text}")
    hub.put_files("eve/bad", {path.name: path.read_bytes() for path in folder.iterdir()})
    pruner = MetaPruner.from_search(bank)
    assert sorted(pruner.bank.entries) == ["eve--bad", "me--good"]
    report = pruner.adapt(task, neighbours=1, **TINY).report
    assert [n["id"] for n in report.neighbours] == ["me--good"]
    assert any("eve--bad" in note and "model_args are not those of the base" in note for note in report.notes)
    publish_bank(own_bank, "me/bank")
    with pytest.raises(FormatError, match="model_args are not those"):
        add_entries("me/bank", {"bad": folder})


def test_weights_that_are_far_out_do_not_vote(hub: LoopbackHub, own_bank: Bank, task: TaskData) -> None:
    nearest = MetaPruner(own_bank).adapt(task, neighbours=1, **TINY).report.neighbours[0]["id"]
    path = own_bank[nearest].folder / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    state["network.layer1.0.conv1.weight"] *= 1000  # which the norm undoes: nothing else tells
    state["network.layer1.0.bn1.running_mean"] *= 1000
    state["network.layer1.0.bn1.running_var"] *= 1000**2
    path.unlink()
    save_file(state, path, {"format": "pt"})
    rows = pq.read_table(own_bank.root / "index.parquet")
    changed = [
        row | ({"sha256": sha256_file(path), "size": path.stat().st_size} if row["id"] == nearest else {})
        for row in rows.to_pylist()
    ]
    pq.write_table(rows.from_pylist(changed, schema=rows.schema), own_bank.root / "index.parquet")
    report = MetaPruner(Bank.open(own_bank.root, strict=False)).adapt(task, neighbours=1, **TINY).report
    assert report.neighbours[0]["id"] != nearest
    assert any(nearest in note and "is far out" in note for note in report.notes)
    with pytest.raises(FormatError, match="is far out"):
        MetaPruner(Bank.open(own_bank.root)).adapt(task, neighbours=1, **TINY)


@pytest.mark.parametrize("status", [400, 403, 404, 451])
def test_one_model_that_cannot_be_had_does_not_stop_the_others(
    hub: LoopbackHub, bank: Bank, result: AdaptResult, task: TaskData, tmp_path: Path, status: int
) -> None:
    folder = result.save_pretrained(tmp_path / "good")
    for repo_id in ("ada/pets", "bob/pets"):
        hub.put_folder(repo_id, folder)
    pruner = MetaPruner.from_search(bank)
    hub.faults.add(Status(status), path="ada/pets/resolve", times=1000)
    report = pruner.adapt(task, neighbours=1, **TINY).report
    assert [n["id"] for n in report.neighbours] == ["bob--pets"]
    (note,) = (note for note in report.notes if "ada--pets" in note)
    assert "write" not in note
    assert "local_files_only" not in note


def test_one_model_in_trouble_does_not_end_a_search(
    hub: LoopbackHub, bank: Bank, result: AdaptResult, tmp_path: Path
) -> None:
    folder = result.save_pretrained(tmp_path / "good")
    for repo_id in ("ada/pets", "bob/pets"):
        hub.put_folder(repo_id, folder)
    hub.faults.add(Status(500), path="ada/pets/resolve", times=1000)
    found = Bank.from_search(bank)
    assert list(found.entries) == ["bob--pets"]
    assert "has trouble" in found.left_out["ada/pets"]


def test_ones_own_models_vote_for_each_other(
    hub: LoopbackHub, bank: Bank, result: AdaptResult, task: TaskData, tmp_path: Path
) -> None:
    folder = result.save_pretrained(tmp_path / "good")
    for n in range(3):
        hub.put_folder(f"me/m{n}", folder)
    pruner = MetaPruner.from_search(bank)
    assert len(pruner.adapt(task, neighbours=3, **TINY).report.neighbours) == 3
    hub.put_folder("bob/m", folder)
    report = MetaPruner.from_search(bank).adapt(task, neighbours=3, **TINY).report
    assert sorted(n["id"] for n in report.neighbours) == ["bob--m", "me--m0"]
    assert any("an owner has at most 1 (votes_per_owner)" in note for note in report.notes)


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


def test_no_entry_is_larger_than_the_base(hub: LoopbackHub, own_bank: Bank, task: TaskData, tmp_path: Path) -> None:
    publish_bank(own_bank, "me/bank")
    victim = first(own_bank)
    put_index(hub, tmp_path, lambda rows: rows[0].update(size=60_000_000))
    shutil.rmtree(hub_cache(), ignore_errors=True)
    hub.reset_log()
    report = MetaPruner.from_hub("me/bank").adapt(task, neighbours=1, **TINY).report
    assert any(victim.id in note and "more than any slice of the base" in note for note in report.notes)
    assert hub.count("GET", path=f"{victim.path}/model.safetensors") == 0


def hub_cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def test_terminal_codes_of_strangers_are_not_passed_on(own_bank: Bank, caplog: pytest.LogCaptureFixture) -> None:
    edit_json(own_bank.root / "bank.json", **{"\x1b]0;PWNED\x07\x1b[2J": 1})
    Bank.open(own_bank.root)
    assert "PWNED" in caplog.text
    assert "\x1b" not in caplog.text
    assert "\x1b" not in str(MetaPruneError("bad base \x1b[31mEVIL\x1b]0\nerror: all is lost"))
    assert "\n" not in str(MetaPruneError("bad\nerror: all is lost"))


def test_a_list_that_goes_on_elsewhere_does_not_get_the_token(
    hub: LoopbackHub, bank: Bank, result: AdaptResult, tmp_path: Path
) -> None:
    hub.put_folder("ada/pets", result.save_pretrained(tmp_path / "good"))
    hub.faults.add(Header({"Link": f'<{hub.storage_endpoint}/evil>; rel="next"'}), path="/api/models")
    with pytest.raises(HubError, match="goes on at another address"):
        Bank.from_search(bank)
    assert hub.count(host="storage", path="/evil") == 0


def test_what_was_written_by_hand_into_the_yaml_stays(hub: LoopbackHub, result: AdaptResult) -> None:
    result.push_to_hub("me/pets")
    card = hub.read_files("me/pets")["README.md"].decode()
    mine = "---\n# my notes\nbase_model: timm/resnet18  # by hand\ndatasets: [cifar100]\ndate: 2026-11-22\n"
    hub.put_files("me/pets", {"README.md": card.replace("---\n", mine, 1).encode()})
    result.model.config.ratio = 0.6
    result.push_to_hub("me/pets")
    now = hub.read_files("me/pets")["README.md"].decode()
    assert now.startswith(mine)
    assert split(now)[0]["metaprune"]["ratio"] == 0.6


def test_an_upload_that_failed_says_why(hub: LoopbackHub, own_bank: Bank) -> None:
    hub.faults.add(Status(500), method="PUT", host="storage", times=1000)
    with pytest.raises(HubError, match=r"500|try again"):
        publish_bank(own_bank, "me/bank")
    hub.faults.clear()
    assert len(publish_bank(own_bank, "me/bank").added) == 4


def test_an_entry_published_as_a_model_claims_no_more_than_is_known(hub: LoopbackHub, bank: Bank) -> None:
    from hf_metaprune.result import load_result

    entry = first(bank)
    load_result(entry.folder).push_to_hub("me/pets")
    text = hub.read_files("me/pets")["README.md"].decode()
    assert "0.0% of the parameters" not in text
    assert f"Accuracy {entry.metrics['accuracy']:.1%}" in text


def rebuild(bank: Bank, **changes: object) -> Bank:
    """The bank with another config of its first entry, and the index that goes with it."""
    edit_json(first(bank).folder / "config.json", **changes)
    return repair_index(bank.root)[0]


def test_what_is_said_of_an_entry_is_brought_up_to_date(hub: LoopbackHub, own_bank: Bank) -> None:
    publish_bank(own_bank, "me/bank")
    entry = first(own_bank)
    better = rebuild(own_bank, synsets=["cat.n.01", None, None], metrics={"accuracy": 0.25})
    assert publish_bank(better, "me/bank").added == [entry.id]
    there = Bank.from_hub("me/bank")[entry.id]
    assert (there.task.synsets[0], there.metrics) == ("cat.n.01", {"accuracy": 0.25})
    there.verify()
    assert publish_bank(better, "me/bank").commits == []
    edit_json(own_bank.root / "bank.json", name="better", defaults={"ratio": 0.5})
    assert len(publish_bank(Bank.open(own_bank.root), "me/bank").commits) == 1
    found = Bank.from_hub("me/bank")
    assert (found.name, found.default_ratio) == ("better", 0.5)
    assert json.loads(hub.read_files("me/bank")["bank.json"])["name"] == "better"


def lose(hub: LoopbackHub, *paths: str) -> None:
    from huggingface_hub import CommitOperationDelete, HfApi

    HfApi().create_commit("me/bank", [CommitOperationDelete(path) for path in paths], commit_message="oh")


def test_files_that_were_lost_on_the_hub_are_sent_again(hub: LoopbackHub, own_bank: Bank) -> None:
    publish_bank(own_bank, "me/bank")
    entry = first(own_bank)
    lose(hub, f"{entry.path}/model.safetensors")
    assert publish_bank(own_bank, "me/bank").added == [entry.id]
    assert f"{entry.path}/model.safetensors" in hub.read_files("me/bank")
    lose(hub, *(f"{entry.path}/{name.name}" for name in entry.folder.iterdir()))
    assert remove_entries("me/bank", [entry.id]).removed == [entry.id]
    assert entry.id not in Bank.from_hub("me/bank")


def test_one_entry_in_trouble_does_not_stop_the_others(hub: LoopbackHub, own_bank: Bank, task: TaskData) -> None:
    publish_bank(own_bank, "me/bank")
    shutil.rmtree(hub_cache(), ignore_errors=True)
    victim = first(own_bank)
    hub.faults.add(Status(500), path=f"{victim.path}/model.safetensors", times=10_000)
    report = MetaPruner.from_hub("me/bank").adapt(task, neighbours=1, **TINY).report
    assert any(victim.id in note and "has trouble" in note for note in report.notes)
    shutil.rmtree(hub_cache(), ignore_errors=True)
    hub.faults.clear()
    hub.faults.add(Status(500), path="/tasks/", times=10_000)
    with pytest.raises(HubError, match=r"has trouble"):
        MetaPruner.from_hub("me/bank").adapt(task, neighbours=1, **TINY)


def test_a_header_is_asked_for_again_and_not_remembered_wrong(
    hub: LoopbackHub, bank: Bank, result: AdaptResult, tmp_path: Path
) -> None:
    hub.put_folder("ada/pets", result.save_pretrained(tmp_path / "good"))
    hub.faults.add(Status(429, headers={"Retry-After": "1"}), method="GET", path="model.safetensors")
    assert list(Bank.from_search(bank).entries) == ["ada--pets"]
    hub.put_files("ada/pets", {"notes.txt": b"a new commit"})
    hub.faults.add(Content(b"<html>Log in to the hotel's network</html>"), method="GET", host="storage")
    assert "cannot be read" in Bank.from_search(bank).left_out["ada/pets"]
    assert list(Bank.from_search(bank).entries) == ["ada--pets"]


def test_no_entry_is_put_where_another_says_that_it_lies(hub: LoopbackHub, own_bank: Bank, tmp_path: Path) -> None:
    publish_bank(own_bank, "me/bank")
    put_index(hub, tmp_path, lambda rows: rows[0].update(path="tasks/newone"))
    with pytest.raises(FormatError, match="another entry lies"):
        add_entries("me/bank", {"newone": own_bank[list(own_bank.entries)[1]].folder})


def test_a_row_that_is_huge_does_not_lock_the_bank(hub: LoopbackHub, own_bank: Bank, tmp_path: Path) -> None:
    publish_bank(own_bank, "me/bank")
    put_index(hub, tmp_path, lambda rows: rows[0].update(labels=["x" * 3_000_000, "b", "c"]))
    folder = own_bank[list(own_bank.entries)[1]].folder
    add_entries("me/bank", {"new-one": folder})
    assert len(hub.read_files("me/bank")["README.md"]) < 100_000
    hub.put_files("me/bank", {"README.md": b"x" * 3_000_000})
    assert remove_entries("me/bank", ["new-one"]).removed == ["new-one"]
    assert len(hub.read_files("me/bank")["README.md"]) == 3_000_000  # not ours to cut


def test_rows_of_other_repos_are_kept_and_removed(
    hub: LoopbackHub, own_bank: Bank, result: AdaptResult, tmp_path: Path
) -> None:
    hub.put_folder("me/pets", result.save_pretrained(tmp_path / "pets"))
    found = Bank.from_search(own_bank)
    row = first(found).row() | {"id": "zzz"}
    publish_bank(own_bank, "me/bank")
    put_index(hub, tmp_path, lambda rows: rows.append(row))
    there = Bank.from_hub("me/bank")
    there["zzz"].verify()
    assert validate_bank(there) == []
    assert remove_entries("me/bank", ["zzz"]).removed == ["zzz"]
    assert len(Bank.from_hub("me/bank")) == 4
    with pytest.raises(BankError, match="lies in me/pets: what a search found is published there already"):
        found.push_to_hub("me/commons")
    assert ("models", "me/commons") not in hub.store.repos
    assert validate_bank(found) == []


def test_a_licence_that_was_stated_is_stated_in_the_text(hub: LoopbackHub, result: AdaptResult) -> None:
    result.push_to_hub("me/pets", license="apache-2.0")
    result.model.config.ratio = 0.6
    result.push_to_hub("me/pets")
    card = hub.read_files("me/pets")["README.md"].decode()
    assert "License: apache-2.0." in card
    hub.put_files("me/new", {"README.md": b"---\nlicense: mit\n---\n"})
    result.push_to_hub("me/new")
    assert "License: mit." in hub.read_files("me/new")["README.md"].decode()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_texts_with_empty_lines_and_other_line_ends_stay(hub: LoopbackHub, result: AdaptResult, end: str) -> None:
    result.push_to_hub("me/pets")
    card = hub.read_files("me/pets")["README.md"].decode()
    mine = "---\n# keep me\nlicense: other  # see LICENSE\nextra_gated_prompt: |-\n  Be kind.\n\n  Really.\n"
    mine = card.replace("---\n", mine, 1).replace("## Limits", "## My limits").replace("\n", end)
    hub.put_files("me/pets", {"README.md": mine.encode()})
    result.model.config.ratio = 0.6
    result.push_to_hub("me/pets")
    now = hub.read_files("me/pets")["README.md"].decode()
    assert now.split(end)[:7] == mine.split(end)[:7]
    assert now.count(end) == now.count("\n")
    assert split(now)[0]["metaprune"]["ratio"] == 0.6


def test_a_card_that_cannot_say_what_the_model_is_stops_the_publication(hub: LoopbackHub, result: AdaptResult) -> None:
    result.push_to_hub("me/pets")
    card = hub.read_files("me/pets")["README.md"].decode()
    mine = card.replace("---\n", "---\nmine: &a [x]\nyours: *a\n", 1).replace("## Limits", "## My limits")
    hub.put_files("me/pets", {"README.md": mine.encode()})
    before = hub.read_files("me/pets")
    result.model.config.ratio = 0.6
    with pytest.raises(HubError, match="cannot be brought up to date"):
        result.push_to_hub("me/pets")
    assert hub.read_files("me/pets") == before


def test_what_is_to_be_private_is_not_published_for_all(hub: LoopbackHub, result: AdaptResult, own_bank: Bank) -> None:
    hub.put_files("me/pets", {"README.md": b"x"})
    with pytest.raises(HubError, match="is there already, and public"):
        result.push_to_hub("me/pets", private=True)
    path = first(own_bank).folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BankError, match="cannot be published"):
        publish_bank(own_bank, "me/damaged")
    assert ("models", "me/damaged") not in hub.store.repos


@pytest.mark.parametrize("commons", [False, True])
def test_files_come_several_at_a_time(
    hub: LoopbackHub, own_bank: Bank, result: AdaptResult, tmp_path: Path, commons: bool
) -> None:
    publish_bank(own_bank, "me/bank")
    folder = result.save_pretrained(tmp_path / "good")
    for repo_id in ("ada/pets", "bob/pets"):
        hub.put_folder(repo_id, folder)
    found = Bank.from_search(own_bank) if commons else Bank.from_hub("me/bank")
    entries = list(found)[:2]
    shutil.rmtree(hub_cache(), ignore_errors=True)
    together = threading.Barrier(2, timeout=60)
    hub.faults.add(Call(lambda: together.wait()), method="GET", host="storage", times=2)
    found.fetch(entries)  # one at a time, the first would wait in vain for the second
    assert not together.broken


def spoil(bank: Bank, entry_id: str, **changes: Any) -> None:
    """Change tensors of an entry, and the index with them."""
    path = bank[entry_id].folder / "model.safetensors"
    state = {n: t.float().clone() if t.is_floating_point() else t.clone() for n, t in load_file(path).items()}
    for name, change in changes.items():
        for key in state:
            if key.endswith(name):
                state[key] = change(state[key])
    path.unlink()
    save_file(state, path, {"format": "pt"})
    rows = pq.read_table(bank.root / "index.parquet")
    new = {"sha256": sha256_file(path), "size": path.stat().st_size}
    changed = [row | (new if row["id"] == entry_id else {}) for row in rows.to_pylist()]
    pq.write_table(rows.from_pylist(changed, schema=rows.schema), bank.root / "index.parquet")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("running_var", lambda t: -t, "variances below 0"),
        ("fc.weight", lambda t: t * 0 + 3e38, "outputs are not finite"),
    ],
)
def test_weights_that_give_nonsense_do_not_vote(own_bank: Bank, name: str, change: Any, message: str) -> None:
    spoil(own_bank, first(own_bank).id, **{name: change})
    entry = first(Bank.open(own_bank.root))
    with pytest.raises(FormatError, match=message):
        entry.verify()


def test_a_row_that_lies_of_its_files_does_not_vote(
    hub: LoopbackHub, own_bank: Bank, task: TaskData, tmp_path: Path
) -> None:
    publish_bank(own_bank, "me/bank")
    victim = first(own_bank)
    lies = {"labels": list(task.task.labels), "method": "zzz", "ratio": 0.01, "metrics": '{"accuracy": 1.0}'}
    honest = victim.row()
    for key, lie in lies.items():
        put_index(hub, tmp_path, lambda rows, key=key, lie=lie: rows[0].update(honest | {key: lie}))
        assert honest[key] != lie
        there = Bank.from_hub("me/bank")
        with pytest.raises(FormatError, match=f"{key}.* not those of the index"):
            there[victim.id].verify()


def test_what_a_bank_has_lost_is_put_there_again(hub: LoopbackHub, own_bank: Bank) -> None:
    publish_bank(own_bank, "me/bank")
    whole = hub.read_files("me/bank")
    for path in ("base/model.safetensors", "index.parquet", "bank.json", f"{first(own_bank).path}/config.json"):
        lose(hub, path)
        assert publish_bank(own_bank, "me/bank").commits, path
        assert hub.read_files("me/bank").keys() == whole.keys(), path
        assert publish_bank(own_bank, "me/bank").commits == []
    entry = first(own_bank)
    lose(hub, f"{entry.path}/model.safetensors")
    assert add_entries("me/bank", {entry.id: entry.folder}).added == [entry.id]
    assert hub.read_files("me/bank").keys() == whole.keys()


def test_what_only_the_config_says_is_brought_up_to_date(hub: LoopbackHub, own_bank: Bank) -> None:
    publish_bank(own_bank, "me/bank")
    entry = first(own_bank)
    edit_json(entry.folder / "config.json", seed=99)
    assert publish_bank(own_bank, "me/bank").added == [entry.id]
    assert json.loads(hub.read_files("me/bank")[f"{entry.path}/config.json"])["seed"] == 99
    assert publish_bank(own_bank, "me/bank").commits == []


def test_no_path_in_a_config_is_published(hub: LoopbackHub, own_bank: Bank) -> None:
    for folder in (own_bank.base_folder, first(own_bank).folder):
        edit_json(folder / "config.json", _name_or_path="/home/alice/x")
    edit_json(first(own_bank).folder / "config.json", dataset="/home/alice/cats", mine="/home/alice/y")
    edit_json(own_bank.root / "bank.json", mine="/home/alice/z")
    publish_bank(Bank.open(own_bank.root), "me/bank")
    assert "alice" not in everything(hub, "me/bank")
    assert publish_bank(Bank.open(own_bank.root), "me/bank").commits == []
    Bank.from_hub("me/bank")[first(own_bank).id].verify()


def test_what_was_true_of_another_model_goes_and_what_was_written_by_hand_stays(
    hub: LoopbackHub, result: AdaptResult
) -> None:
    result.report.source = "me/cats"
    result.push_to_hub("me/pets")
    assert split(hub.read_files("me/pets")["README.md"].decode())[0]["datasets"] == ["me/cats"]
    result.report.source = "dogs"
    result.push_to_hub("me/pets")
    assert "datasets" not in split(hub.read_files("me/pets")["README.md"].decode())[0]


def test_a_sync_removes_nothing_that_could_not_be_read(hub: LoopbackHub, own_bank: Bank) -> None:
    publish_bank(own_bank, "me/bank")
    edit_index(own_bank, ratio=7.0)
    with pytest.raises(BankError, match="could not be read, and would be removed"):
        publish_bank(Bank.open(own_bank.root, strict=False), "me/bank", delete=True)
    assert len(Bank.from_hub("me/bank")) == 4


def test_a_pull_request_cannot_be_private(hub: LoopbackHub, result: AdaptResult) -> None:
    hub.put_files("bob/pets", {"README.md": b"x"})
    with pytest.raises(OptionError, match="private=True is for a repo that is made"):
        result.push_to_hub("bob/pets", private=True, create_pr=True)

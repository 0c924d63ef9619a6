"""What of a machine, of a report and of a path gets into what is published, and what must not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hf_metaprune import AdaptResult, Bank, MetaPruner
from hf_metaprune.bank.publish import publish_bank
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import BankError, FormatError, HubError, MetaPruneError, OptionError
from hf_metaprune.reporting.card import split_card
from hf_metaprune.reporting.report_files import load_report
from tests.bank.edits import edit_json, first
from tests.hub import LoopbackHub
from tests.hub.edits import TINY, everything, put_index


def test_no_path_of_this_machine_is_published(hub: LoopbackHub, result: AdaptResult, tmp_path: Path) -> None:
    home = tmp_path / "Alice Smith"
    result.report.notes = [f"left out entry x: {home}/model.safetensors was altered", "plain"]
    result.report.skipped_images = [f"cat/grandma.jpg: cannot identify image file '{home}/cat/grandma.jpg'"]
    result.push_to_hub("me/pets")
    public = everything(hub, "me/pets")
    for private in ("Alice", "Smith", str(tmp_path), "grandma"):
        assert private not in public
    report = json.loads(hub.read_files("me/pets")["report.json"])
    notes = ["2 notes: see the report where it was made", "1 unreadable image: see the report where it was made"]
    assert report["notes"] == notes
    assert "Smith" in result.report.notes[0]  # one's own report tells all


def test_no_path_in_a_config_is_published(hub: LoopbackHub, own_bank: Bank) -> None:
    for folder in (own_bank.base_folder, first(own_bank).folder):
        edit_json(folder / "config.json", _name_or_path="/home/alice/x")
    edit_json(first(own_bank).folder / "config.json", dataset="/home/alice/cats", mine="/home/alice/y")
    edit_json(own_bank.root / "bank.json", mine="/home/alice/z")
    publish_bank(Bank.open(own_bank.root), "me/bank")
    assert "alice" not in everything(hub, "me/bank")
    assert publish_bank(Bank.open(own_bank.root), "me/bank").commits == []
    Bank.from_hub("me/bank")[first(own_bank).id].verify()


@pytest.mark.slow
def test_a_path_cannot_bring_markup_into_a_card(
    hub: LoopbackHub, own_bank: Bank, task: TaskData, tmp_path: Path
) -> None:
    publish_bank(own_bank, "me/bank")
    path = 'tasks/x) <b>PWNED</b> <a href="https&#58;&#47;&#47;evil.com">weights</a> [y](z'
    put_index(hub, tmp_path, lambda rows: rows[0].update(path=path))
    pruner = MetaPruner.from_hub("me/bank")
    assert len(pruner.bank) == 3
    assert "characters" in next(iter(pruner.bank.skip_reasons.values()))
    result = pruner.adapt(task, neighbors=2, **TINY)
    result.report.neighbors[0]["path"] = path  # whatever way it came
    result.push_to_hub("me/pets")
    text = split_card(hub.read_files("me/pets")["README.md"].decode())[1]
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
        report = load_report(folder / "report.json")
        forgery = AdaptResult(result.model, result.preprocessing, report, result.device)
        forgery.push_to_hub("me/pets")
        for name in ("README.md", "report.md"):
            text = hub.read_files("me/pets")[name].decode()
            assert not re.search(r"(?<!\\)(<img|\[click\])", text), (name, changes)
    for changes in ({"options": {"steps": {"a": [bad]}}}, {"seconds": {"a": bad}}, {"bank": {"name": {"x": 1}}}):
        edit_json(folder / "report.json", **changes)
        with pytest.raises(FormatError, match="is not a report"):
            load_report(folder / "report.json")


def test_terminal_codes_of_strangers_are_not_passed_on(own_bank: Bank, caplog: pytest.LogCaptureFixture) -> None:
    edit_json(own_bank.root / "bank.json", **{"\x1b]0;PWNED\x07\x1b[2J": 1})
    Bank.open(own_bank.root)
    assert "PWNED" in caplog.text
    assert "\x1b" not in caplog.text
    assert "\x1b" not in str(MetaPruneError("bad base \x1b[31mEVIL\x1b]0\nerror: all is lost"))
    assert "\n" not in str(MetaPruneError("bad\nerror: all is lost"))


def test_what_is_to_be_private_is_not_published_for_all(hub: LoopbackHub, result: AdaptResult, own_bank: Bank) -> None:
    hub.put_files("me/pets", {"README.md": b"x"})
    with pytest.raises(HubError, match="exists already and is public"):
        result.push_to_hub("me/pets", private=True)
    path = first(own_bank).folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BankError, match="cannot be published"):
        publish_bank(own_bank, "me/damaged")
    assert ("models", "me/damaged") not in hub.store.repos


def test_a_pull_request_cannot_be_private(hub: LoopbackHub, result: AdaptResult) -> None:
    hub.put_files("bob/pets", {"README.md": b"x"})
    with pytest.raises(OptionError, match="private=True is for a new repo"):
        result.push_to_hub("bob/pets", private=True, create_pr=True)


def test_no_token_in_a_name_is_published(hub: LoopbackHub, own_bank: Bank, result: AdaptResult) -> None:
    token = "hf_" + "x" * 34
    edit_json(own_bank.root / "bank.json", name=f"bank {token}")
    config = own_bank.base_folder / "config.json"
    cfg = json.loads(config.read_text())["pretrained_cfg"]
    edit_json(config, pretrained_cfg=cfg | {"label_names": [[token]]})
    publish_bank(Bank.open(own_bank.root), "me/bank")
    assert token not in everything(hub, "me/bank")
    versions = dict(result.report.versions)
    result.report.versions = versions | {token: "1.0", "a:b": "1.0"}
    result.report.source = token
    result.report.bank = {"name": token, "repo_id": f"me/{token}"}
    for facts in result.report.neighbors:
        facts |= {"repo_id": f"me/{token}", "path": f"tasks/{token}"}
    base = result.model.config.base_model
    result.model.config.base_model = base | {"repo_id": f"me/{token}"}
    result.push_to_hub("me/pets")
    assert token not in everything(hub, "me/pets")
    assert json.loads(hub.read_files("me/pets")["report.json"])["versions"] == versions


@pytest.mark.parametrize("source", ["~x=secret", "a: secret", "https://x.org/?key=secret"])
def test_a_source_that_is_no_name_is_not_published(hub: LoopbackHub, result: AdaptResult, source: str) -> None:
    result.report.source = result.model.config.dataset = source
    result.push_to_hub("me/pets")
    assert "secret" not in everything(hub, "me/pets")
    assert json.loads(hub.read_files("me/pets")["report.json"])["source"] == "unnamed images"


def test_labels_of_a_base_are_published(hub: LoopbackHub, own_bank: Bank) -> None:
    config = own_bank.base_folder / "config.json"
    cfg = json.loads(config.read_text())["pretrained_cfg"]
    edit_json(config, pretrained_cfg=cfg | {"label_names": ["a cat", "a dog: small"]})
    publish_bank(Bank.open(own_bank.root), "me/bank")
    published = json.loads(hub.read_files("me/bank")["base/config.json"])
    assert published["pretrained_cfg"]["label_names"] == ["a cat", "a dog: small"]

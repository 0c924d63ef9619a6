"""Publishing where there is something already: it is kept, brought up to date, or put back."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from hf_metaprune import AdaptResult, Bank, MetaPruner
from hf_metaprune.bank.publish import add_entries, publish_bank, remove_entries
from hf_metaprune.bank.repair import repair_index
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import BankError, FormatError, HubError
from hf_metaprune.reporting.card import split_card
from hf_metaprune.reporting.publishing import publish_model
from hf_metaprune.result import load_result
from tests.bank.edits import edit_index, edit_json, first
from tests.hub import Content, LoopbackHub, Status
from tests.hub.edits import TINY, lose

pytestmark = pytest.mark.slow


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


def test_what_was_written_by_hand_into_the_yaml_stays(hub: LoopbackHub, result: AdaptResult) -> None:
    result.push_to_hub("me/pets")
    card = hub.read_files("me/pets")["README.md"].decode()
    mine = "---\n# my notes\nbase_model: timm/resnet18  # by hand\ndatasets: [cifar100]\ndate: 2026-11-22\n"
    hub.put_files("me/pets", {"README.md": card.replace("---\n", mine, 1).encode()})
    result.model.config.ratio = 0.6
    result.push_to_hub("me/pets")
    now = hub.read_files("me/pets")["README.md"].decode()
    assert now.startswith(mine)
    assert split_card(now)[0]["metaprune"]["ratio"] == 0.6


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
    assert split_card(now)[0]["metaprune"]["ratio"] == 0.6


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


def test_a_license_that_was_stated_is_stated_in_the_text(hub: LoopbackHub, result: AdaptResult) -> None:
    result.push_to_hub("me/pets", license="apache-2.0")
    result.model.config.ratio = 0.6
    result.push_to_hub("me/pets")
    card = hub.read_files("me/pets")["README.md"].decode()
    assert "License: apache-2.0." in card
    hub.put_files("me/new", {"README.md": b"---\nlicense: mit\n---\n"})
    result.push_to_hub("me/new")
    assert "License: mit." in hub.read_files("me/new")["README.md"].decode()


def test_what_was_true_of_another_model_goes_and_what_was_written_by_hand_stays(
    hub: LoopbackHub, result: AdaptResult
) -> None:
    result.report.source = "me/cats"
    result.push_to_hub("me/pets")
    assert split_card(hub.read_files("me/pets")["README.md"].decode())[0]["datasets"] == ["me/cats"]
    result.report.source = "dogs"
    result.push_to_hub("me/pets")
    assert "datasets" not in split_card(hub.read_files("me/pets")["README.md"].decode())[0]


def test_an_entry_published_as_a_model_claims_no_more_than_is_known(hub: LoopbackHub, bank: Bank) -> None:
    from hf_metaprune.result import load_result

    entry = first(bank)
    load_result(entry.folder).push_to_hub("me/pets")
    text = hub.read_files("me/pets")["README.md"].decode()
    assert "0.0% of the parameters" not in text
    assert f"Accuracy {entry.metrics['accuracy']:.1%}" in text


def test_an_upload_that_failed_says_why(hub: LoopbackHub, own_bank: Bank) -> None:
    hub.faults.add(Status(500), method="PUT", host="storage", times=1000)
    with pytest.raises(HubError, match=r"500|try again"):
        publish_bank(own_bank, "me/bank")
    hub.faults.clear()
    assert len(publish_bank(own_bank, "me/bank").added) == 4


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
    remote = Bank.from_hub("me/bank")
    assert (remote.name, remote.default_ratio) == ("better", 0.5)
    assert json.loads(hub.read_files("me/bank")["bank.json"])["name"] == "better"


def test_what_only_the_config_says_is_brought_up_to_date(hub: LoopbackHub, own_bank: Bank) -> None:
    publish_bank(own_bank, "me/bank")
    entry = first(own_bank)
    edit_json(entry.folder / "config.json", seed=99)
    assert publish_bank(own_bank, "me/bank").added == [entry.id]
    assert json.loads(hub.read_files("me/bank")[f"{entry.path}/config.json"])["seed"] == 99
    assert publish_bank(own_bank, "me/bank").commits == []


def test_files_that_were_lost_on_the_hub_are_sent_again(hub: LoopbackHub, own_bank: Bank) -> None:
    publish_bank(own_bank, "me/bank")
    entry = first(own_bank)
    lose(hub, f"{entry.path}/model.safetensors")
    assert publish_bank(own_bank, "me/bank").added == [entry.id]
    assert f"{entry.path}/model.safetensors" in hub.read_files("me/bank")
    lose(hub, *(f"{entry.path}/{name.name}" for name in entry.folder.iterdir()))
    assert remove_entries("me/bank", [entry.id]).removed == [entry.id]
    assert entry.id not in Bank.from_hub("me/bank")


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_others_wrote_into_a_banks_description_is_put_right(
    hub: LoopbackHub, own_bank: Bank, task: TaskData
) -> None:
    publish_bank(own_bank, "me/bank")
    sound = hub.read_files("me/bank")
    meta = json.loads(sound["bank.json"])
    bad = "resnet18`, see [the fixed weights](http://evil.example) <img src=x>"
    meta["base_model"] |= {"architecture": bad, "repo_id": "evil/base"}
    hub.put_files("me/bank", {"bank.json": json.dumps(meta).encode(), "base/config.json": b"{}"})
    remove_entries("me/bank", [first(own_bank).id])  # which writes the card anew
    card = hub.read_files("me/bank")["README.md"].decode()
    assert not re.search(r"(?<!\\)(\]\(http://evil|<img)", card)
    publish_bank(own_bank, "me/bank", delete=True)
    now = hub.read_files("me/bank")
    assert json.loads(now["bank.json"]) == json.loads(sound["bank.json"])
    assert now["base/config.json"] == sound["base/config.json"]
    assert MetaPruner.from_hub("me/bank").adapt(task, neighbors=2, **TINY).report.neighbors
    assert publish_bank(own_bank, "me/bank").commits == []


@pytest.mark.slow
def test_a_card_that_was_edited_before_it_is_published_is_kept(
    hub: LoopbackHub, result: AdaptResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = result.save_pretrained(tmp_path / "mine")
    card = folder / "README.md"

    def publish(local: tuple[str, str] | None = None, there: tuple[str, str] | None = None) -> tuple[dict, str]:
        if local:
            card.write_text(card.read_text().replace(*local, 1))
        if there:
            hub.put_files("me/pets", {"README.md": hub.read_files("me/pets")["README.md"].decode().replace(*there, 1)})
        publish_model(load_result(folder), "me/pets")
        assert publish_model(load_result(folder), "me/pets").commits == []
        return split_card(hub.read_files("me/pets")["README.md"].decode())

    yaml, text = publish(local=("---\n", "---\nlicense: mit\n"))
    assert yaml["license"] == "mit"
    assert ("License: mit." in text, '"me/pets"' in text) == (True, True)
    yaml, text = publish(local=("## Limits", "## My words"), there=("---\n", "---\nlanguage: en\n"))
    assert ("## My words" in text, yaml["language"], yaml["license"]) == (True, "en", "mit")
    assert ("# me/pets" in text, '"me/pets"' in text, "mine" in text) == (True, True, False)
    yaml, text = publish(local=("## My words", "## Better words"), there=("license: mit", "license: apache-2.0"))
    assert ("## Better words" in text, yaml["license"]) == (True, "apache-2.0")
    yaml, _ = publish(local=("---\n", "---\nthumbnail: x.png\ndatasets: [cifar100]\n"))
    assert (yaml["thumbnail"], yaml["language"], yaml["datasets"]) == ("x.png", "en", ["cifar100"])
    assert "hf_metaprune" not in {record.name.partition(".")[0] for record in caplog.records}
    yaml, text = publish(there=("## Better words", "## Words on the Hub"))
    assert ("## Words on the Hub" in text, yaml["thumbnail"]) == (True, "x.png")
    assert "the folder's card is not sent" in caplog.text
    yaml, _ = publish(there=("license: apache-2.0", "license: [mit, apache-2.0]"))
    assert yaml["license"] == ["mit", "apache-2.0"]
    hub.put_files("me/pets", {"README.md": b"---\n{ bad\n---\nOurs."})
    with pytest.raises(HubError, match="cannot be brought up to date"):
        publish_model(load_result(folder), "me/pets")
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    publish_model(load_result(copy), "me/others")
    card.write_text("---\n{ bad\n---\nMine.")
    publish_model(load_result(folder), "me/new")
    assert "is not sent: the card's YAML" in caplog.text
    for repo in ("me/others", "me/new"):
        text = split_card(hub.read_files(repo)["README.md"].decode())[1]
        assert (f'"{repo}"' in text, "mine" in text) == (True, False)


def test_weights_that_others_changed_on_the_hub_are_sent_again(hub: LoopbackHub, own_bank: Bank) -> None:
    publish_bank(own_bank, "me/bank")
    whole, entry = hub.read_files("me/bank"), first(own_bank)
    for path in ("base/model.safetensors", f"{entry.path}/model.safetensors"):
        hub.put_files("me/bank", {path: whole[path][:-1] + b"\x7f"})
        assert len(publish_bank(own_bank, "me/bank").commits) == 1, path
        assert hub.read_files("me/bank") == whole, path
    Bank.from_hub("me/bank")[entry.id].verify()
    for path in ("bank.json", "index.parquet"):
        hub.put_files("me/bank", {path: b"nonsense"})
        with pytest.raises(FormatError, match="me/bank holds a damaged bank.*Revert the commit"):
            publish_bank(own_bank, "me/bank")
        lose(hub, path)
        publish_bank(own_bank, "me/bank")
        assert hub.read_files("me/bank") == whole, path


def test_a_base_is_named_only_if_its_repo_has_it(hub: LoopbackHub, result: AdaptResult, base_folder: Path) -> None:
    hub.put_files("big/resnet", {"model.safetensors": b"x" * 5000})
    result.model.config.base_model |= {"repo_id": "big/resnet"}
    result.push_to_hub("me/pets")
    text = hub.read_files("me/pets")["README.md"].decode()
    assert "big/resnet" not in text
    assert "base_model" not in split_card(text)[0]
    hub.put_folder("big/resnet", base_folder)
    result.push_to_hub("me/pets")
    assert split_card(hub.read_files("me/pets")["README.md"].decode())[0]["base_model"] == "big/resnet"


@pytest.mark.parametrize("answer", [b"{}", b"[]"])
@pytest.mark.parametrize("path", ["/repos/create", "/preupload/", "/commit/", "/api/models/me/bank"])
def test_answers_of_another_kind_are_said(hub: LoopbackHub, own_bank: Bank, path: str, answer: bytes) -> None:
    hub.faults.add(Content(answer), path=path, times=1000)
    with pytest.raises(HubError, match="malformed|try again|does not say"):
        publish_bank(own_bank, "me/bank")
    hub.faults.clear()
    publish_bank(own_bank, "me/bank")
    assert len(Bank.from_hub("me/bank")) == 4


def test_a_sync_removes_nothing_that_could_not_be_read(hub: LoopbackHub, own_bank: Bank) -> None:
    publish_bank(own_bank, "me/bank")
    edit_index(own_bank, ratio=7.0)
    with pytest.raises(BankError, match="could not be read, and would be removed"):
        publish_bank(Bank.open(own_bank.root, strict=False), "me/bank", delete=True)
    assert len(Bank.from_hub("me/bank")) == 4

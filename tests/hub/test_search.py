"""The commons: models of anybody on the Hub as a bank; whom to trust, what is bad, and what a second search asks."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import BankError, FormatError, HubError, HubUnreachableError, OptionError
from hf_metaprune.reporting.card import split_card
from tests.hub import LoopbackHub, Status

TINY = {"steps": 1, "batch_size": 8, "eval_steps": (0,), "precision": "fp32"}
Files = dict[str, bytes]


@pytest.fixture(scope="session")
def model_files(bank_folder: Path, task_data: TaskData, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A published model's files, of cat, dog and daisy."""
    pruner = MetaPruner(Bank.open(bank_folder))
    result = pruner.adapt(task_data.select((0, 1, 3), seed=0), by="leep", neighbors=2, **TINY)
    folder = result.save_pretrained(tmp_path_factory.mktemp("models") / "me")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def with_facts(files: Files, **changes: object) -> Files:
    """The files with another ``metaprune`` block in the card."""
    data, text = split_card(files["README.md"].decode())
    data["metaprune"] |= changes
    return files | {"README.md": f"---\n{yaml.safe_dump(data)}---\n{text}".encode()}


def search(bank: Bank | str | Path, **options: object) -> Bank:
    return Bank.from_search(bank, **options)


def test_models_of_the_same_base_are_found(hub: LoopbackHub, bank: Bank, model_files: Files) -> None:
    hub.put_files("ada/pets", model_files)
    hub.put_files("bob/others", with_facts(model_files, base_sha256="0" * 64))
    hub.put_files("eve/untagged", model_files | {"README.md": b"---\ntags: [x]\n---\n"})
    hub.put_files("me/secret", model_files)
    hub.repo("me/secret").private = True
    commons = search(bank)
    assert (sorted(commons.entries), commons.skip_reasons) == (["ada--pets", "me--secret"], {})
    entry = commons["ada--pets"]
    assert (entry.labels, entry.owner, entry.ratio) == (("cat", "dog", "daisy"), "ada", 0.7)
    assert entry.revision == hub.repo("ada/pets").branches["main"]
    assert hub.count("GET", path="model.safetensors", status=200) == 0  # headers only
    entry.verify()


def test_a_second_search_asks_only_for_what_is_new(hub: LoopbackHub, bank: Bank, model_files: Files) -> None:
    for n in range(5):
        hub.put_files(f"ada/m{n}", model_files)
    hub.page_size = 2
    assert len(search(bank)) == 5
    assert hub.count("GET", path="/api/models") == 3  # pages
    hub.reset_log()
    assert len(search(bank)) == 5
    assert {request.path.partition("?")[0] for request in hub.requests} == {"/api/models"}
    hub.put_files("ada/m3", {"notes.txt": b"x"})
    hub.reset_log()
    assert len(search(bank)) == 5
    requests = [request for request in hub.requests if not request.path.startswith("/api/models?")]
    assert requests
    assert all("m3" in request.path for request in requests)


def test_whom_to_trust(hub: LoopbackHub, bank: Bank, model_files: Files) -> None:
    for repo_id in ("ada/a", "ada/b", "bob/a", "eve/a"):
        hub.put_files(repo_id, model_files)
    ids = lambda **options: sorted(e.repo_id for e in search(bank, **options))  # noqa: E731
    assert ids(author="ada") == ["ada/a", "ada/b"]
    assert ids(allow=("Ada", "bob/a")) == ["ada/a", "ada/b", "bob/a"]
    assert ids(deny=("ada/b", "eve")) == ["ada/a", "bob/a"]
    assert ids(allow=("ada",), deny=("ada/b",)) == ["ada/a"]
    assert ids(trusted=("eve",), limit=1) == ["eve/a"]
    assert ids(trusted=("ada/b",), limit=1) == ["ada/b"]
    assert ids(trusted=("eve",)) == ["ada/a", "ada/b", "bob/a", "eve/a"]
    assert ids(tags=("nobody-has-it",)) == []
    with pytest.raises(OptionError, match="neither an owner nor a repo"):
        search(bank, deny=("not a name",))
    with pytest.raises(OptionError, match="limit"):
        search(bank, limit=0)


@pytest.mark.slow
def test_no_owner_outvotes_the_others(hub: LoopbackHub, bank: Bank, model_files: Files, task_data: TaskData) -> None:
    for repo_id in ("eve/1", "eve/2", "eve/3", "eve/4", "zoe/1", "zoe/2"):
        hub.put_files(repo_id, model_files)
    pruner = MetaPruner.from_search(bank)
    task = task_data.select((0, 1, 2), seed=0)
    report = pruner.adapt(task, by="leep", neighbors=2, **TINY).report
    assert [n["id"] for n in report.neighbors] == ["eve--1", "zoe--1"]
    report = pruner.adapt(task, by="leep", neighbors=3, votes_per_owner=2, **TINY).report
    assert [n["id"] for n in report.neighbors] == ["eve--1", "eve--2", "zoe--1"]


def lie_labels(files: Files) -> Files:
    return with_facts(files, labels=["cat", "dog", "horse"])


def lie_masks(files: Files) -> Files:
    facts = split_card(files["README.md"].decode())[0]["metaprune"]
    masks = bytearray(base64.b64decode(facts["masks"]))
    masks[0] ^= 128
    return with_facts(files, masks=base64.b64encode(masks).decode())


def header(files: Files, **changes: str) -> Files:
    body = files["model.safetensors"]
    size = int.from_bytes(body[:8], "little")
    fields = json.loads(body[8 : 8 + size])
    fields["__metadata__"] |= changes
    new = json.dumps(fields).encode()
    return files | {"model.safetensors": len(new).to_bytes(8, "little") + new + body[8 + size :]}


BAD: dict[str, tuple[Callable[[Files], Files], str]] = {
    "labels that the weights do not have": (lie_labels, "labels"),
    "masks that the weights do not have": (lie_masks, "masks_digest"),
    "a header of another base": (lambda f: header(f, base_model_sha256="0" * 64), "base_model_sha256"),
    "a header of a newer format": (lambda f: header(f, format_version="2"), "newer format version"),
    "no weights": (lambda f: {n: b for n, b in f.items() if n != "model.safetensors"}, "no such file"),
    "weights that are none": (lambda f: f | {"model.safetensors": b"12345"}, "cannot be read"),
    "a header that is huge": (lambda f: f | {"model.safetensors": b"\xff" * 64}, "cannot be read"),
    "a header that nests": (
        lambda f: f | {"model.safetensors": (60_000).to_bytes(8, "little") + b"[" * 60_000},
        "cannot be read",
    ),
    "no facts": (lambda f: f | {"README.md": b"---\ntags: [metaprune]\n---\n"}, "metaprune block"),
    "facts that are no object": (lambda f: f | {"README.md": b"---\ntags: [metaprune]\nmetaprune: 5\n---\n"}, "block"),
    "a newer format": (lambda f: with_facts(f, format_version=2), "format version 2"),
    "a format that is no number": (lambda f: with_facts(f, format_version="x" * 1000), "format version xxx"),
    "labels with control characters": (lambda f: with_facts(f, labels=["a", "b", "c\u202e"]), "control"),
    "labels that are no list": (lambda f: with_facts(f, labels=5), "label"),
    "masks that are no base64": (lambda f: with_facts(f, masks="%%%"), "masks"),
    "masks that are too short": (lambda f: with_facts(f, masks="AAAA"), "does not fit"),
    "a size that is text": (lambda f: with_facts(f, size="large"), "row"),
    "a ratio out of range": (lambda f: with_facts(f, ratio=7), "ratio"),
    "a base that is no text": (lambda f: with_facts(f, base_sha256=[1]), "base"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_models_are_left_out_and_named(hub: LoopbackHub, bank: Bank, model_files: Files, name: str) -> None:
    spoil, message = BAD[name]
    hub.put_files("ada/pets", model_files)
    hub.put_files("eve/pets", spoil(model_files))
    unread = message in ("no such file", "cannot be read")  # which may be the way's fault, and is asked again
    for expects_requests in (True, unread):  # else remembered
        hub.reset_log()
        commons = search(bank)
        assert expects_requests or not hub.count(path="/eve/pets/")
        assert list(commons.entries) == ["ada--pets"]
        assert list(commons.skip_reasons) == ["eve/pets"]
        assert message in commons.skip_reasons["eve/pets"]
    with pytest.raises(FormatError, match=message):
        search(bank, strict=True)


@pytest.mark.slow
def test_weights_that_are_bad_are_found_before_they_vote(
    hub: LoopbackHub, bank: Bank, model_files: Files, task_data: TaskData
) -> None:
    body = model_files["model.safetensors"]
    nan_body = body[:-64] + torch.full((32,), float("nan"), dtype=torch.float16).numpy().tobytes()
    hub.put_files("ada/pets", model_files)
    hub.put_files("eve/pets", model_files | {"model.safetensors": nan_body})
    pruner = MetaPruner.from_search(bank)
    assert len(pruner.bank) == 2
    report = pruner.adapt(task_data.select((0, 1, 2), seed=0), by="leep", neighbors=1, **TINY).report
    assert [n["id"] for n in report.neighbors] == ["ada--pets"]
    assert any("eve--pets" in note for note in report.notes)


@pytest.mark.slow
def test_the_report_names_what_the_search_left_out(
    hub: LoopbackHub, bank: Bank, model_files: Files, task_data: TaskData
) -> None:
    hub.put_files("ada/pets", model_files)
    hub.put_files("eve/pets", lie_labels(model_files))
    pruner = MetaPruner.from_search(bank)
    report = pruner.adapt(task_data.select((0, 1, 2), seed=0), by="leep", neighbors=1, **TINY).report
    assert any("eve/pets" in note and "labels" in note for note in report.notes)


def test_a_search_that_finds_nothing_says_why(
    hub: LoopbackHub, bank: Bank, model_files: Files, task_data: TaskData, caplog: pytest.LogCaptureFixture
) -> None:
    pruner = MetaPruner.from_search(bank)
    with pytest.raises(BankError, match=r"models on the Hub: .* lists 0 models yet: publish one"):
        pruner.adapt(task_data, **TINY)
    hub.put_files("ada/pets", model_files)
    hub.put_files("bob/others", with_facts(model_files, base_sha256="0" * 64))
    hub.put_files("eve/pets", lie_labels(model_files))
    pruner = MetaPruner.from_search(bank, deny=("ada",))
    assert "the search found no model that may vote" in caplog.text
    with pytest.raises(BankError, match=r"lists 3 models \(.*1 not allowed.*\)") as error:
        pruner.adapt(task_data, **TINY)
    assert all(fate in str(error.value) for fate in ("1 of another base", "1 left out"))


def test_gated_models_are_left_out_until_access_is_given(hub: LoopbackHub, bank: Bank, model_files: Files) -> None:
    hub.put_files("ada/pets", model_files)
    hub.repo("ada/pets").gated = "manual"
    commons = search(bank)
    assert "gated: ask for access" in commons.skip_reasons["ada/pets"]
    hub.grant("ada/pets", "me")
    assert list(search(bank).entries) == ["ada--pets"]


def test_a_hub_in_trouble_is_no_empty_commons(hub: LoopbackHub, bank: Bank, model_files: Files) -> None:
    hub.put_files("ada/pets", model_files)
    hub.faults.add(Status(503), path="/api/models", times=100)
    with pytest.raises(HubUnreachableError):
        search(bank)
    hub.faults.clear()
    hub.faults.add(Status(503), path="model.safetensors", times=100)
    with pytest.raises(HubUnreachableError):
        search(bank)


def test_a_commons_without_a_cache(hub: LoopbackHub, bank: Bank, model_files: Files, tmp_path: Path) -> None:
    hub.put_files("ada/pets", model_files)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "hf-metaprune-commons-2.sqlite").write_bytes(b"no database" * 100)
    assert len(search(bank, cache_dir=tmp_path / "cache")) == 1


def test_a_base_on_the_hub_is_enough(hub: LoopbackHub, bank: Bank, base_folder: Path, model_files: Files) -> None:
    hub.put_folder("timm/tiny", base_folder)
    hub.put_files("ada/pets", model_files)
    pruner = MetaPruner.from_search("timm/tiny")
    assert list(pruner.bank.entries) == ["ada--pets"]
    assert pruner.bank.default_ratio == 0.7  # that of the models
    base = pruner.bank.base
    assert (base.repo_id, base.revision) == ("timm/tiny", hub.repo("timm/tiny").branches["main"])
    assert list(search(base_folder).entries) == ["ada--pets"]
    with pytest.raises(HubError, match="no such revision"):
        search("timm/tiny", revision="v9")
    hub.put_files("ada/notes", {"notes.txt": b"x"})
    with pytest.raises(FormatError, match=r"cannot get config.json from ada/notes: it has no such file"):
        search("ada/notes")

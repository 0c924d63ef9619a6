"""Reading a bank on the Hub: what is fetched and when, one commit throughout, faults, and no network."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.bank import bank as bank_module
from hf_metaprune.bank.publish import publish_bank, remove_entries
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import (
    BankError,
    BaseMismatchError,
    FormatError,
    HubError,
    HubUnreachableError,
    MetaPruneError,
    OptionError,
)
from tests.conftest import first_by_default, needs_wordnet
from tests.hub import Call, Content, CutShort, Drop, LoopbackHub, Redirect, Status, WrongLength

TINY = {"steps": 1, "batch_size": 8, "eval_steps": (0,), "precision": "fp32"}


@pytest.fixture(scope="module")
def repos_once() -> dict:
    """What a Hub holds after the tiny bank was published to it."""
    return {}


@pytest.fixture
def published(hub: LoopbackHub, bank: Bank, repos_once: dict) -> Bank:
    """The tiny bank, which is on the Hub as me/bank; nothing of it is cached."""
    if not repos_once:
        publish_bank(bank, "me/bank")
        repos_once.update(copy.deepcopy(hub.store.repos))
    hub.store.repos = copy.deepcopy(repos_once)
    forget(hub)
    return bank


def forget(hub: LoopbackHub) -> None:
    from huggingface_hub import constants

    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    hub.reset_log()


@pytest.mark.slow
@needs_wordnet
def test_only_the_neighbors_weights_are_fetched(hub: LoopbackHub, published: Bank, task_data: TaskData) -> None:
    pruner = MetaPruner.from_hub("me/bank")
    assert [e.labels for e in pruner.bank] == [e.labels for e in published]
    assert len(hub.requests) == 2
    task = task_data.select((0, 1, 2), seed=0)
    result = pruner.adapt(task, by="wordnet", neighbors=1, **TINY)
    assert result.report.neighbors[0]["labels"] == ["cat", "dog", "truck"]
    assert hub.count("GET", host="storage") == 3  # the index, the base, one entry
    before = len(hub.requests)
    MetaPruner.from_hub("me/bank", revision=pruner.bank.files.commit).adapt(task, by="wordnet", neighbors=1, **TINY)
    assert len(hub.requests) == before  # all of it was in the cache


def test_a_commit_is_read_throughout(hub: LoopbackHub, published: Bank) -> None:
    pruner = MetaPruner.from_hub("me/bank")
    first = next(iter(pruner.bank))
    remove_entries("me/bank", [first.id])
    assert first.load_model().mask() == first.mask  # of the commit that was opened
    assert first.id not in Bank.from_hub("me/bank").entries
    assert first.id in Bank.from_hub("me/bank", revision=pruner.bank.files.commit).entries


def test_a_revision_that_moves_between_two_requests(
    hub: LoopbackHub, published: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a small file the client may get the branch's next content under this commit's name."""
    hub.pins = False
    monkeypatch.setattr("tests.hub.server.is_large", lambda *_: False)
    files = hub.read_files("me/bank")
    hub.put_files("me/small", files)
    before, index = hub.repo("me/small").branches["main"], bytearray(files["index.parquet"])
    index[len(index) // 2] ^= 1
    move = Call(lambda: hub.put_files("me/small", {"index.parquet": bytes(index)}))
    hub.faults.add(move, method="GET", path="index.parquet")
    bank = Bank.from_hub("me/small")
    assert hub.repo("me/small").branches["main"] != bank.files.commit == before
    assert (bank.root / "index.parquet").read_bytes() == files["index.parquet"]
    assert len(bank) == 4


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("fault", [Status(500), Status(429, retry_after=0), Drop(), CutShort(100)], ids=str)
def test_passing_faults_are_survived(hub: LoopbackHub, published: Bank, fault: object, times: int) -> None:
    method = "HEAD" if isinstance(fault, Status) else "GET"
    hub.faults.add(fault, method=method, path="index.parquet|model.safetensors", times=times)
    bank = Bank.from_hub("me/bank")
    assert next(iter(bank)).load_model().num_labels == 3


def test_lasting_faults_are_told(hub: LoopbackHub, published: Bank) -> None:
    hub.faults.add(Status(503), method="HEAD", path="index.parquet", times=100)
    with pytest.raises(HubUnreachableError, match=r"cannot get index.parquet from me/bank"):
        Bank.from_hub("me/bank")
    hub.faults.clear()
    bank = Bank.from_hub("me/bank")
    hub.faults.add(WrongLength(5), method="GET", path="model.safetensors", times=100)
    with pytest.raises(MetaPruneError, match=r"model.safetensors"):
        next(iter(bank)).load_model()


def test_a_body_that_was_altered_on_the_way_is_fetched_again(hub: LoopbackHub, published: Bank) -> None:
    bank = Bank.from_hub("me/bank")
    entry = next(iter(bank))
    body = hub.read_files("me/bank")[f"{entry.path}/model.safetensors"]
    hub.faults.add(Content(body[:-1] + bytes([body[-1] ^ 1])), method="GET", path="model.safetensors")
    entry.verify()


@pytest.mark.slow
def test_entries_that_are_bad_are_left_out_and_named(hub: LoopbackHub, published: Bank, task_data: TaskData) -> None:
    task = task_data.select((0, 1, 2), seed=0)
    neighbors = MetaPruner.from_hub("me/bank").adapt(task, by="leep", neighbors=3, **TINY).report.neighbors
    entry = published[neighbors[0]["id"]]  # which is nearest differs between processors
    path = f"{entry.path}/model.safetensors"
    whole = hub.read_files("me/bank")[path]
    hub.put_files("me/bank", {path: whole[:-2] + bytes([whole[-2] ^ 1, whole[-1]])})
    result = MetaPruner.from_hub("me/bank").adapt(task, by="leep", neighbors=3, **TINY)
    assert entry.id not in [n["id"] for n in result.report.neighbors]
    (note,) = [note for note in result.report.notes if entry.id in note]
    assert "altered" in note
    with pytest.raises(FormatError, match="altered"):
        MetaPruner.from_hub("me/bank", strict=True).adapt(task, by="leep", neighbors=3, **TINY)


def test_files_that_are_too_large_are_not_fetched(
    hub: LoopbackHub, published: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = Bank.from_hub("me/bank")
    entry = next(iter(bank))
    files = hub.read_files("me/bank")
    hub.put_files("me/bank", {f"{entry.path}/model.safetensors": bytes(10_000_000)})
    entry = Bank.from_hub("me/bank")[entry.id]
    with pytest.raises(FormatError, match=r"model.safetensors has .* not fetched"):
        entry.load_model()
    assert max(path.stat().st_size for path in bank.root.parents[2].rglob("*")) < 1_000_000
    monkeypatch.setattr(bank_module, "MAX_INDEX_BYTES", len(files["index.parquet"]) - 1)
    forget(hub)
    with pytest.raises(FormatError, match=r"index.parquet has .* not fetched"):
        Bank.from_hub("me/bank")


def test_without_a_network_what_is_cached_is_used(
    hub: LoopbackHub, published: Bank, task_data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubUnreachableError, match="not in the cache"):
        MetaPruner.from_hub("me/bank", local_files_only=True)
    pruner = MetaPruner.from_hub("me/bank")
    voters = list(pruner.bank)[:2]
    pruner.bank.fetch(voters)
    pruner.bank.base_folder  # noqa: B018
    hub.reset_log()
    offline = Bank.from_hub("me/bank", local_files_only=True)
    assert len(offline) == 4
    offline[voters[0].id].verify()
    with pytest.raises(HubUnreachableError, match=r"model.safetensors|config.json"):
        list(offline)[3].load_model()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Bank.from_hub("me/bank")[voters[1].id].verify()
    with pytest.raises(HubUnreachableError):
        Bank.from_hub("me/other")
    assert hub.requests == []


@pytest.mark.parametrize("by", first_by_default("leep", "auto", "leep+labels"))
def test_without_a_network_those_that_are_cached_vote(
    hub: LoopbackHub, published: Bank, task_data: TaskData, by: str
) -> None:
    online = Bank.from_hub("me/bank")
    there, others = list(online)[:2], [entry.id for entry in list(online)[2:]]
    online.fetch(there)
    online.base_folder  # noqa: B018
    hub.reset_log()
    task, options = task_data.select((0, 1, 2), seed=0), {**TINY, "by": by}
    pruner = MetaPruner.from_hub("me/bank", local_files_only=True)
    report = pruner.adapt(task, neighbors=2, **options).report
    assert {n["id"] for n in report.neighbors} == {entry.id for entry in there}
    (note,) = (text for text in report.notes if "the cache lacks" in text)
    assert "left out 2 entries" in note
    assert all(name in note for name in others)
    weights = online.files.path(f"{there[0].path}/model.safetensors").resolve()
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1  # the least bit of a float16: nothing but the digest tells
    weights.write_bytes(content)
    with pytest.raises(BankError, match=f"only 1 of 4 entries.*{there[0].id}: .* was altered"):
        pruner.adapt(task, neighbors=2, **options)
    with pytest.raises(BankError, match="only [12] of 4 entries.*the cache lacks"):
        pruner.adapt(task, neighbors=3, **options)
    with pytest.raises(HubUnreachableError, match="not in the cache"):
        MetaPruner.from_hub("me/bank", local_files_only=True, strict=True).adapt(task, neighbors=2, **options)
    assert hub.requests == []


def test_no_token_follows_to_another_host(hub: LoopbackHub, published: Bank) -> None:
    bank = Bank.from_hub("me/bank")
    bank.fetch(bank)
    elsewhere = [request for request in hub.requests if request.host == "storage"]
    assert len(elsewhere) == 5
    assert all(request.authorization is None for request in elsewhere)
    assert any(request.authorization for request in hub.requests if request.host != "storage")


@pytest.mark.slow
def test_private_and_gated_banks(hub: LoopbackHub, bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_user("lab", token="hf_token_of_lab")
    publish_bank(bank, "lab/private", private=True, token="hf_token_of_lab")
    with pytest.raises(HubError, match=r"no such repo, or it is private.*is meant as a folder, there is none"):
        Bank.from_hub("lab/private")
    assert len(Bank.from_hub("lab/private", token="hf_token_of_lab")) == 4
    publish_bank(bank, "lab/gated", token="hf_token_of_lab")
    hub.repo("lab/gated").gated = "manual"
    with pytest.raises(HubError, match="gated: ask for access"):
        Bank.from_hub("lab/gated")
    hub.grant("lab/gated", "me")
    gated_bank = Bank.from_hub("lab/gated")
    next(iter(gated_bank)).verify()


def test_what_is_no_bank_is_told(hub: LoopbackHub, published: Bank, tmp_path: Path) -> None:
    hub.put_files("me/model", {"config.json": b"{}"})
    with pytest.raises(FormatError, match="me/model is not a bank"):
        MetaPruner.from_hub("me/model")
    with pytest.raises(HubError, match="no such repo"):
        MetaPruner.from_hub("me/nothing")
    with pytest.raises(HubError, match="no such revision"):
        MetaPruner.from_hub("me/bank", revision="v9")
    with pytest.raises(FormatError, match="no folder .*owner/name"):
        MetaPruner.from_hub("./nowhere")
    with pytest.raises(OptionError, match="revision"):
        MetaPruner.from_hub(published.root, revision="main")
    hub.reset_log()
    for base_model in ("./me/bank", Path("me/bank")):
        with pytest.raises(FormatError, match="no folder|config.json"):
            Bank.from_base(base_model)
    with pytest.raises(FormatError, match="no folder ./nowhere"):
        MetaPruner.from_hub("./nowhere", revision="main")
    with pytest.raises(OptionError, match="no such user"):
        MetaPruner.from_hub("~nobody_of_this_name/bank")
    assert hub.requests == []
    files = hub.read_files("me/bank")
    hub.put_files("me/bank", {"base/model.safetensors": files["base/model.safetensors"] + b" "})
    with pytest.raises((BaseMismatchError, FormatError)):
        MetaPruner.from_hub("me/bank").bank.base  # noqa: B018


def test_the_token_is_nowhere(hub: LoopbackHub, published: Bank, caplog: pytest.LogCaptureFixture) -> None:
    secret = "hf_token_of_me"
    with caplog.at_level("DEBUG", logger="hf_metaprune"):
        bank = Bank.from_hub("me/bank", token=secret)
        assert secret not in f"{bank!r} {bank.files!r} {bank.reference()}"
        hub.faults.add(Status(500, message=f"bad token {secret}"), method="HEAD", path="config.json", times=100)
        with pytest.raises(MetaPruneError) as error:
            next(iter(bank)).load_model()
        hub.faults.clear()
        hub.faults.add(Redirect(f"http://127.0.0.1:9/{secret}"), method="HEAD", path="config.json", times=1)
        with pytest.raises(MetaPruneError) as also:
            next(iter(bank)).load_model()
    assert secret not in f"{error.value} {also.value} {caplog.text}"

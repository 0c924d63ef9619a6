"""Faults on demand, and what the real client makes of each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, list_models, model_info, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RemoteEntryNotFoundError

from tests.hub import (
    Call,
    Content,
    CutShort,
    Drop,
    Header,
    LoopbackHub,
    Redirect,
    Status,
    Wait,
    WrongLength,
    quick_retries,
)
from tests.hub.client import httpx
from tests.hub.fixtures import TOKEN

BODY = bytes(range(256)) * 40
COMMIT = "/commit/main"
GET_BODY: dict[str, Any] = {"method": "GET", "host": "storage"}


@pytest.fixture
def pauses(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the client asks for."""
    hub.put_files("me/x", {"a.txt": "hello", "w.bin": BODY})
    return quick_retries(monkeypatch)


def download(name: str = "w.bin", **options: str) -> bytes:
    return Path(hf_hub_download("me/x", name, **options)).read_bytes()


def upload() -> str:
    return HfApi().upload_file(path_or_fileobj=b"b", path_in_repo="b.txt", repo_id="me/x").oid


def test_a_look_that_fails_is_tried_again_and_a_body_is_not(hub: LoopbackHub, pauses: list[float]):
    hub.faults.add(Status(500), method="HEAD", times=2)
    assert download() == BODY
    assert [r.status for r in hub.seen("HEAD")] == [500, 500, 302]
    assert pauses == [1]  # the first failure sends the client to its cache, at once
    hub.faults.add(Status(503), **GET_BODY)
    with pytest.raises(HfHubHTTPError, match="503"):
        hf_hub_download("me/x", "w.bin", force_download=True)
    assert pauses == [1]


def test_a_hub_that_stays_broken_is_given_up(hub: LoopbackHub, pauses: list[float]):
    fault = hub.faults.add(Status(503), times=None)
    with pytest.raises(LocalEntryNotFoundError) as given_up:
        download()
    assert isinstance(given_up.value.__cause__, HfHubHTTPError)
    assert (fault.hits, pauses) == (7, [1, 2, 4, 8, 8])
    with pytest.raises(LocalEntryNotFoundError, match="HfHubHTTPError"):
        snapshot_download("me/x")
    assert fault.hits == 8  # its first question is asked once only
    with pytest.raises(HfHubHTTPError):
        model_info("me/x")
    with pytest.raises(HfHubHTTPError):
        upload()
    assert fault.hits == 8 + 1 + 6
    hub.faults.clear()
    assert download() == BODY


def test_what_is_cached_is_given_when_the_hub_is_broken(hub: LoopbackHub, pauses: list[float]):
    assert download() == BODY
    for action in (Status(500), Status(429, retry_after=9), Status(403)):
        hub.faults.add(action, method="HEAD")
        assert download() == BODY
    assert pauses == []
    hub.faults.add(Drop(), method="HEAD")
    with pytest.raises(httpx.RemoteProtocolError):  # this the client does not catch
        download()


def test_a_look_for_what_is_missing_hides_what_is_cached(hub: LoopbackHub, pauses: list[float]):
    assert download() == BODY
    hub.put_files("me/x", {"new.txt": "new"})
    with pytest.raises(RemoteEntryNotFoundError):
        download("none.txt")  # the cache now takes the new commit, of which it has no file, for main
    hub.faults.add(Status(500), method="HEAD", times=None)
    with pytest.raises(LocalEntryNotFoundError):
        download()
    assert download(revision=hub.history("me/x")[1].oid) == BODY


def test_a_client_in_haste_waits_as_long_as_it_is_told(hub: LoopbackHub, pauses: list[float]):
    hub.faults.add(Status(429, retry_after=7), **GET_BODY)
    for headers in ({}, {"RateLimit": '"api";r=0;t=55'}):
        hub.faults.add(Status(429, headers=headers), method="GET", path="/api/models$")
    assert download() == BODY
    assert [m.id for m in list_models()] == ["me/x"]
    assert pauses == [8, 1, 56]  # a second more than told, against rounding


def test_pages_are_asked_for_again(hub: LoopbackHub, pauses: list[float]):
    hub.page_size = 1
    hub.put_files("me/y", {"a": "a"})
    hub.faults.add(Status(502), path="cursor=", times=2)
    assert [m.id for m in list_models()] == ["me/x", "me/y"]
    assert [r.status for r in hub.requests] == [200, 502, 502, 200]


def test_a_body_cut_short_is_resumed(hub: LoopbackHub, pauses: list[float], monkeypatch: pytest.MonkeyPatch):
    hub.faults.add(CutShort(keep=1000), **GET_BODY)
    assert download() == BODY
    assert [(r.status, r.range, r.bytes_out) for r in hub.seen(**GET_BODY)] == [
        (200, None, 1000),
        (200, None, len(BODY)),  # less than a chunk of 10 MiB is not kept
    ]
    hub.reset_log()
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)
    hub.faults.add(CutShort(keep=1050), **GET_BODY)
    hf_hub_download("me/x", "w.bin", force_download=True)
    assert download() == BODY
    assert [(r.status, r.range, r.bytes_out) for r in hub.seen(**GET_BODY)] == [
        (200, None, 1050),
        (206, "bytes=1000-", len(BODY) - 1000),
    ]
    assert pauses == [1, 1]


def test_a_body_that_never_comes_whole_is_given_up(hub: LoopbackHub, pauses: list[float]):
    fault = hub.faults.add(CutShort(), times=None, **GET_BODY)
    with pytest.raises(httpx.RemoteProtocolError):
        download()
    assert fault.hits == 6
    assert not list(Path(hf_hub_download("me/x", "a.txt")).parents[2].rglob("*.incomplete"))


def test_a_dropped_connection_is_tried_again_for_a_body_only(hub: LoopbackHub, pauses: list[float]):
    hub.faults.add(Drop(), **GET_BODY)
    assert download() == BODY
    assert [r.status for r in hub.seen(**GET_BODY)] == [0, 200]
    hub.faults.add(Drop(), method="HEAD")
    with pytest.raises(httpx.RemoteProtocolError):
        download("a.txt")
    hub.faults.add(Drop(), path="/api/models/me/x")
    with pytest.raises(httpx.RemoteProtocolError):
        model_info("me/x")


def test_a_body_of_another_length_is_an_error(hub: LoopbackHub, pauses: list[float]):
    hub.faults.add(Content(BODY[:-1]), **GET_BODY)
    with pytest.raises(OSError, match="Consistency check failed"):
        download()
    hub.faults.add(WrongLength(-1), **GET_BODY)
    with pytest.raises(OSError, match="Consistency check failed"):
        download()
    hub.faults.add(WrongLength(5), **GET_BODY)  # it waits for more in vain, and asks again
    assert download() == BODY
    hub.faults.add(WrongLength(5), method="HEAD", path="resolve-cache")
    with pytest.raises(OSError, match="Consistency check failed"):
        download("a.txt")


def test_another_body_of_the_same_length_is_not_noticed(hub: LoopbackHub, pauses: list[float]):
    hub.faults.add(Content(lambda body: body[::-1]), **GET_BODY)
    assert download() == BODY[::-1]
    assert download() == BODY[::-1]  # and stays in the cache


def test_a_branch_moves_between_the_look_and_the_body(hub: LoopbackHub, pauses: list[float]):
    def move() -> None:
        hub.put_files("me/x", {"a.txt": "other", "w.bin": BODY[::-1]})

    old = hub.commit("me/x").oid
    hub.faults.add(Call(move), method="GET")
    assert download("a.txt") == b"hello"  # from an address of the commit
    hub.put_files("me/x", {"a.txt": "hello", "w.bin": BODY})
    hub.faults.add(Call(move), method="GET")
    assert download() == BODY
    hub.put_files("me/x", {"a.txt": "HELLO"})
    hub.pins = False
    hub.faults.add(Call(move), method="GET")
    assert download("a.txt") == b"other"  # the new file, which the cache takes for that of the old commit
    assert download("a.txt", revision=old) == b"hello"


def test_a_redirect_to_another_host_goes_without_the_token(hub: LoopbackHub, pauses: list[float]):
    hub.repo("me/x").private = True
    hub.faults.add(Redirect(), method="HEAD")
    hub.faults.add(Content(b"hello"), method="GET", host="storage")
    hub.faults.add(Status(200), method="GET", host="storage")
    with pytest.raises(OSError, match="Consistency"):
        download("a.txt")
    assert [(r.host, r.status, r.authorization) for r in hub.requests] == [
        ("hub", 302, f"Bearer {TOKEN}"),
        ("storage", 200, None),
    ]
    hub.reset_log()
    hub.faults.clear()
    hub.faults.add(Redirect(status=307), path="/api/models/me/x")
    with pytest.raises(HfHubHTTPError, match="Invalid username or password"):
        model_info("me/x")
    assert [(r.host, r.authorization) for r in hub.requests] == [("hub", f"Bearer {TOKEN}"), ("storage", None)]


def test_a_redirect_to_where_the_file_is_public(hub: LoopbackHub, pauses: list[float]):
    hub.pins = False
    hub.faults.add(Redirect(), method="HEAD")
    assert download("a.txt") == b"hello"
    assert [(r.method, r.host, r.authorization) for r in hub.requests] == [
        ("HEAD", "hub", f"Bearer {TOKEN}"),
        ("GET", "storage", None),
    ]


def test_headers_are_falsified(hub: LoopbackHub, pauses: list[float]):
    hub.faults.add(Header({"x-repo-commit": None}), method="HEAD")
    with pytest.raises(LocalEntryNotFoundError, match="X-Repo-Commit"):
        download()


def test_a_commit_is_sent_once_whatever_happens_to_the_answer(hub: LoopbackHub, pauses: list[float]):
    hub.faults.add(Status(503), path=COMMIT)
    with pytest.raises(HfHubHTTPError, match="503"):
        upload()
    assert len(hub.history("me/x")) == 2
    hub.faults.add(Drop(done=True), path=COMMIT)
    with pytest.raises(httpx.RemoteProtocolError):
        upload()
    assert hub.read_files("me/x")["b.txt"] == b"b"  # it arrived; only the answer was lost
    head = hub.commit("me/x").oid
    assert upload() == head  # trying again finds nothing to do
    assert (hub.count(path=COMMIT), pauses) == (2, [])


def test_the_steps_before_a_commit_are_tried_again(hub: LoopbackHub, pauses: list[float]):
    for path in ("preupload", "objects/batch", "/upload/", "objects/verify"):
        hub.faults.add(Status(500), path=path)
    HfApi().upload_file(path_or_fileobj=BODY[::-1], path_in_repo="v.bin", repo_id="me/x")
    assert hub.read_files("me/x")["v.bin"] == BODY[::-1]
    assert pauses == [1, 1, 1, 1]


def test_faults_are_for_the_requests_they_are_meant_for(hub: LoopbackHub, pauses: list[float]):
    fault = hub.faults.add(Status(404, code="EntryNotFound"), method="GET", path=r"/me/x$", skip=1, times=2)
    statuses = []
    for _ in range(5):
        statuses.append(httpx.get(f"{hub.endpoint}/api/models/me/x").status_code)
        assert httpx.get(f"{hub.endpoint}/api/models/me/x/refs").status_code == 200
    assert (statuses, fault.hits) == ([200, 404, 404, 200, 200], 2)
    hub.faults.add(Call(lambda: statuses.append(-1)))
    hub.faults.add(Status(500))
    hub.faults.add(Status(502))
    assert [httpx.get(f"{hub.endpoint}/api/models").status_code for _ in range(3)] == [500, 502, 200]
    assert statuses[5:] == [-1]
    start = time.monotonic()
    hub.faults.add(Wait(0.05))
    httpx.get(f"{hub.endpoint}/api/models/me/x")
    assert time.monotonic() - start >= 0.05

"""The loopback Hub itself: its log, its Python side, its end, and its use from other processes."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, list_models
from huggingface_hub.errors import LocalEntryNotFoundError

from tests.hub import Call, LoopbackHub, Status, run_python
from tests.hub.client import httpx
from tests.hub.fixtures import TOKEN


def test_the_log_counts_requests_and_bytes(hub: LoopbackHub):
    hub.put_files("me/x", {"a.txt": "hello"})
    HfApi().upload_file(path_or_fileobj=b"\0" * 999, path_in_repo="w.bin", repo_id="me/x")
    hf_hub_download("me/x", "w.bin")
    assert hub.count() == len(hub.requests) == 7
    assert [r.path for r in hub.seen("POST", path=r"/commit/", host="hub", status=200)] == [
        "/api/models/me/x/commit/main"
    ]
    assert hub.bytes_in == sum(r.bytes_in for r in hub.requests) > 999
    assert hub.seen("GET")[0].bytes_out == 999
    assert all("hf_hub/" in (r.user_agent or "") for r in hub.seen("HEAD"))
    assert {r.port for r in hub.seen(host="hub")} == {int(hub.endpoint.split(":")[-1])}
    hub.reset_log()
    assert (hub.count(), hub.bytes_in, hub.bytes_out) == (0, 0, 0)


def test_a_thousand_models_are_made_and_listed_at_once(hub: LoopbackHub):
    for i in range(1000):
        hub.put_files(f"me/m{i}", {"README.md": f"---\ntags: [bank]\nmetrics: [m{i}]\n---\n", "config.json": "{}"})
    hub.page_size = 500
    models = list(list_models(filter="bank", expand=["cardData", "sha"]))
    assert [m.id for m in models] == [f"me/m{i}" for i in range(1000)]
    assert models[7].card_data is not None and models[7].card_data.metrics == ["m7"]
    assert hub.count() == 2


def test_files_are_put_and_read_without_http(hub: LoopbackHub, tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("a")
    first = hub.put_folder("me/x", tmp_path, repo_type="dataset")
    hub.put_files("me/x", {"b.txt": "b"}, delete=["sub/a.txt"], repo_type="dataset", message="Second")
    assert hub.read_files("me/x", repo_type="dataset") == {"b.txt": b"b"}
    assert hub.read_files("me/x", first, "dataset") == {"sub/a.txt": b"a"}
    assert [c.title for c in hub.history("me/x", repo_type="dataset")] == ["Second", "Put files", "initial commit"]
    assert hub.requests == []


@pytest.mark.slow
def test_many_readers_and_writers_at_once(hub: LoopbackHub):
    hub.put_files("me/x", {"w.bin": b"\0" * 100_000})

    def work(i: int) -> int:
        hub.put_files(f"me/y{i}", {"a.txt": str(i)})
        httpx.get(f"{hub.endpoint}/api/models", params={"full": True}).raise_for_status()
        return len(httpx.get(f"{hub.endpoint}/me/x/resolve/main/w.bin", follow_redirects=True).content)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(24))) == [100_000] * 24
    assert hub.count() == 24 * 3 and len(list(list_models())) == 25


def test_two_hubs_know_nothing_of_each_other(hub: LoopbackHub):
    with LoopbackHub() as other:
        other.put_files("me/x", {"a": "a"})
        api = HfApi(endpoint=other.endpoint, token=other.add_user("me", token=TOKEN))
        assert api.repo_exists("me/x") and not HfApi().repo_exists("me/x")
        assert Path(api.hf_hub_download("me/x", "a")).read_text() == "a"


def test_it_ends_with_connections_open():
    hub = LoopbackHub()
    with httpx.Client() as client:
        with hub:
            client.get(hub.endpoint + "/api/models").raise_for_status()
            idle = socket.create_connection(("127.0.0.1", int(hub.endpoint.split(":")[-1])))
        names = [thread.name for thread in threading.enumerate()]
        assert not [name for name in names if "loopback" in name or "process_request" in name]
        with pytest.raises(httpx.TransportError):
            client.get(hub.endpoint + "/api/models")
        idle.close()


def test_a_bug_in_the_server_is_told_at_its_end():
    def bug() -> None:
        raise ZeroDivisionError

    hub = LoopbackHub()
    with pytest.raises(AssertionError, match="ZeroDivisionError"), hub:
        hub.faults.add(Call(bug))
        assert httpx.get(hub.endpoint + "/api/models").status_code == 501  # which no client tries again


def test_a_hub_that_is_gone_leaves_the_cache(monkeypatch: pytest.MonkeyPatch, hub: LoopbackHub):
    hub.put_files("me/x", {"a.txt": "a"})
    path = hf_hub_download("me/x", "a.txt")
    with socket.socket() as nobody:  # a port on which nobody listens
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert hf_hub_download("me/x", "a.txt", endpoint=address) == path
        with pytest.raises(LocalEntryNotFoundError):
            hf_hub_download("me/x", "b.txt", endpoint=address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hf_hub_download("me/x", "a.txt") == path


def test_the_client_of_this_process_needs_no_endpoint(hub: LoopbackHub, tmp_path: Path):
    assert HfApi().endpoint == constants.ENDPOINT == hub.endpoint
    hub.put_files("me/x", {"a.txt": "a"})
    assert Path(hf_hub_download("me/x", "a.txt")).is_relative_to(tmp_path / "hf_home" / "hub")


def test_another_process_uses_the_hub(hub: LoopbackHub, tmp_path: Path):
    hub.put_files("me/x", {"a.txt": "hello"}, private=True)
    hub.faults.add(Status(500), method="HEAD", times=3)
    code = "import sys, huggingface_hub as h; print(open(h.hf_hub_download('me/x', sys.argv[1])).read())"
    assert run_python(hub, tmp_path / "home", code, "a.txt", token=TOKEN).stdout == "hello\n"
    assert [r.status for r in hub.requests] == [500, 500, 500, 200, 200]
    process = run_python(hub, tmp_path / "home2", code, "a.txt", check=False)
    assert process.returncode == 1 and "RepositoryNotFoundError" in process.stderr

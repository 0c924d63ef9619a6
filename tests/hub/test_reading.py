"""The real client reads from the loopback Hub."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest
from huggingface_hub import (
    HfApi,
    HfFileSystem,
    get_safetensors_metadata,
    hf_hub_download,
    list_models,
    model_info,
    snapshot_download,
)
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RemoteEntryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile, RepoFolder

from tests.hub import LoopbackHub
from tests.hub.client import httpx
from tests.hub.fixtures import TOKEN
from tests.hub.server import Content

BODY = bytes(range(256)) * 40


def asked(hub: LoopbackHub) -> list[str]:
    """The requests in short: where, how, what for, and with whose rights."""
    short = [(r.path.split("?")[0], r) for r in hub.requests]
    kinds = {"/resolve/": "resolve", "/api/resolve-cache/": "pinned", "/lfs/": "body", "/api/": "api"}
    return [
        f"{r.host} {r.method} {next(kind for part, kind in kinds.items() if part in path)} {r.status}"
        for path, r in short
    ]


def test_a_small_file_takes_three_requests_and_comes_from_its_commit(hub: LoopbackHub):
    commit = hub.put_files("me/x", {"sub dir/a+ä.txt": "hello"})
    path = Path(hf_hub_download("me/x", "sub dir/a+ä.txt"))
    assert (path.read_text(), path.parts[-3]) == ("hello", commit)
    assert path.resolve().name == "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"  # as git calls it
    assert asked(hub) == ["hub HEAD resolve 307", "hub HEAD pinned 200", "hub GET pinned 200"]
    hub.reset_log()
    assert Path(hf_hub_download("me/x", "sub dir/a+ä.txt")) == path
    assert asked(hub) == ["hub HEAD resolve 307", "hub HEAD pinned 200"]
    hub.reset_log()
    assert Path(hf_hub_download("me/x", "sub dir/a+ä.txt", revision=commit)) == path
    assert hub.requests == []


def test_a_large_file_takes_two_requests_and_no_token_goes_to_its_host(hub: LoopbackHub):
    hub.put_files("me/x", {"w.bin": BODY})
    path = Path(hf_hub_download("me/x", "w.bin")).resolve()
    assert (path.name, path.read_bytes()) == (hashlib.sha256(BODY).hexdigest(), BODY)
    assert asked(hub) == ["hub HEAD resolve 302", "storage GET body 200"]
    assert [r.authorization for r in hub.requests] == [f"Bearer {TOKEN}", None]
    assert (hub.bytes_out, hub.seen(host="storage")[0].port) == (len(BODY), int(hub.storage_endpoint.split(":")[-1]))
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        httpx.get(hub.storage_endpoint + hub.seen(host="storage")[0].path.split("Signature")[0]).raise_for_status()


def test_files_of_private_repositories_come_from_where_they_are_asked_for(hub: LoopbackHub):
    hub.put_files("me/x", {"a.txt": "hello", "w.bin": BODY}, private=True)
    hf_hub_download("me/x", "a.txt")
    hf_hub_download("me/x", "w.bin")
    assert asked(hub) == ["hub HEAD resolve 200", "hub GET resolve 200", "hub HEAD resolve 302", "storage GET body 200"]


def test_the_large_file_of_an_old_commit_is_still_there(hub: LoopbackHub):
    old = hub.put_files("me/x", {"w.bin": BODY})
    hub.put_files("me/x", {"w.bin": BODY[::-1]})
    HfApi().create_tag("me/x", tag="v1", revision=old)
    assert [Path(hf_hub_download("me/x", "w.bin", revision=r)).read_bytes() for r in (old, "v1", "main")] == [
        BODY,
        BODY,
        BODY[::-1],
    ]


def test_a_part_of_a_file(hub: LoopbackHub):
    hub.put_files("me/x", {"w.bin": BODY, "a.txt": "0123456789"})
    files = HfFileSystem(skip_instance_cache=True, token=TOKEN)
    with files.open("me/x/w.bin", block_size=16) as stream:
        stream.seek(1000)
        assert stream.read(10) == BODY[1000:1010]
    assert max(r.bytes_out for r in hub.seen(host="storage", status=206)) < 100
    url = f"{hub.endpoint}/me/x/resolve/main/a.txt"
    for byte_range, status, body in [
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=5-99", 206, b"56789"),
        ("bytes=10-", 416, None),
    ]:
        reply = httpx.get(url, headers={"Range": byte_range}, follow_redirects=True)
        assert (reply.status_code, body) in ((status, reply.content), (416, None))
    assert reply.headers["Content-Range"] == "bytes */10"
    etag = httpx.head(url, follow_redirects=True).headers["ETag"]
    assert httpx.get(url, headers={"If-None-Match": etag}, follow_redirects=True).status_code == 304


def safetensors(**shapes: list[int]) -> bytes:
    """A safetensors file of zeros in single precision."""
    header, start = {}, 0
    for name, (rows, columns) in shapes.items():
        size = 4 * rows * columns
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [start, start + size]}
        start += size
    text = str(header).replace("'", '"').encode()
    return struct.pack("<Q", len(text)) + text + bytes(start)


def test_the_head_of_a_safetensors_file(hub: LoopbackHub):
    hub.put_files("me/x", {"model.safetensors": safetensors(weight=[300, 200], bias=[1, 200])})
    assert get_safetensors_metadata("me/x").parameter_count == {"F32": 60_200}
    assert asked(hub) == ["hub HEAD resolve 302", "hub GET resolve 302", "storage GET body 206"]
    assert hub.bytes_out == 100_001
    assert {r.authorization for r in hub.seen(host="storage")} == {None}
    info = model_info("me/x", expand=["safetensors"]).safetensors
    assert info is not None and (info.total, info.parameters) == (60_200, {"F32": 60_200})


def test_a_snapshot_with_patterns(hub: LoopbackHub, tmp_path: Path):
    files: dict[str, Content] = {"a.json": "{}", "sub/b.json": "{}", "sub/w.bin": BODY, "c.txt": "c"}
    commit = hub.put_files("me/x", files, repo_type="dataset")
    folder = Path(snapshot_download("me/x", repo_type="dataset", allow_patterns=["*.json", "*.bin"]))
    assert folder.name == commit
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        "a.json",
        "sub/b.json",
        "sub/w.bin",
    }
    assert hub.count(path="/resolve/") == 3 and hub.count(path="/tree/") == 1
    hub.reset_log()
    snapshot_download("me/x", repo_type="dataset", allow_patterns=["*.json", "*.bin"])
    assert [r.path for r in hub.requests] == ["/api/datasets/me/x/revision/main"]
    hub.reset_log()
    snapshot_download("me/x", repo_type="dataset", revision=commit, allow_patterns=["*.json", "*.bin"])
    assert hub.requests == []
    local = Path(snapshot_download("me/x", repo_type="dataset", local_dir=tmp_path / "local"))
    assert (local / "sub" / "w.bin").read_bytes() == BODY


def test_what_is_missing_is_told_apart(hub: LoopbackHub):
    hub.put_files("me/x", {"a.txt": "a"})
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("me/x", "b.txt")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("me/x", "a.txt", revision="v9")
    with pytest.raises(RevisionNotFoundError):
        model_info("me/x", revision="v9")
    api = HfApi()
    assert [api.file_exists("me/x", name) for name in ("a.txt", "b.txt")] == [True, False]
    assert [api.revision_exists("me/x", name) for name in ("main", "v9")] == [True, False]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("me/x", "nowhere"))
    unknown = httpx.get(f"{hub.endpoint}/api/models/me/x/notebook")
    assert (unknown.status_code, "X-Error-Code" in unknown.headers) == (404, False)
    assert "knows no GET /api/models/me/x/notebook" in unknown.json()["error"]


def test_a_tree_in_pages(hub: LoopbackHub):
    hub.page_size = 3
    hub.put_files("me/x", {"b/c/1.txt": "1", "b/2.bin": BODY, "a.txt": "a"}, message="Last")
    api = HfApi()
    assert [e.path for e in api.list_repo_tree("me/x")] == [".gitattributes", "a.txt", "b"]
    assert hub.count() == 1
    everything = list(api.list_repo_tree("me/x", recursive=True, expand=True))
    assert [e.path for e in everything] == [".gitattributes", "a.txt", "b", "b/2.bin", "b/c", "b/c/1.txt"]
    assert hub.count() == 3
    assert [type(e) for e in everything[2:4]] == [RepoFolder, RepoFile]
    large = everything[3]
    assert isinstance(large, RepoFile) and large.lfs is not None and large.last_commit is not None
    assert (large.size, large.lfs.sha256, large.lfs.size) == (
        len(BODY),
        hub.commit("me/x").files["b/2.bin"].sha256,
        10240,
    )
    assert [e.last_commit.title for e in everything if e.last_commit] == ["initial commit", *["Last"] * 5]
    assert [e.path for e in api.list_repo_tree("me/x", "b/c", recursive=True)] == ["b/c/1.txt"]
    entries = api.get_paths_info("me/x", ["b", "a.txt", "none"])
    assert [(type(e), e.path) for e in entries] == [(RepoFolder, "b"), (RepoFile, "a.txt")]


CARD = """---
library_name: {library}
pipeline_tag: image-classification
license: apache-2.0
language: en
tags: [tiny, "{tag}"]
datasets: [me/photos]
base_model: timm/resnet18
---
See https://arxiv.org/abs/2403.01234
"""


def test_information_about_a_model(hub: LoopbackHub):
    commit = hub.put_files("me/x", {"README.md": CARD.format(library="timm", tag="t1"), "w.safetensors": b""})
    info = model_info("me/x", files_metadata=True)
    assert info.card_data is not None and info.siblings is not None
    assert (info.sha, info.author, info.private, info.gated) == (commit, "me", False, False)
    assert (info.library_name, info.pipeline_tag) == ("timm", "image-classification")
    assert (info.card_data.license, info.card_data.base_model) == ("apache-2.0", "timm/resnet18")
    assert info.tags == [
        *("timm", "safetensors", "image-classification", "tiny", "t1", "en", "dataset:me/photos", "arxiv:2403.01234"),
        *("base_model:timm/resnet18", "base_model:finetune:timm/resnet18", "license:apache-2.0", "region:us"),
    ]
    assert {s.rfilename: s.size for s in info.siblings}["w.safetensors"] == 0
    summary = model_info("me/x", revision=commit, expand=["sha", "tags"])
    assert (summary.sha, summary.author, summary.siblings) == (commit, None, None)
    with pytest.raises(HfHubHTTPError, match='"expand" must be one of'):
        model_info("me/x", expand=["shoes"])


def test_models_are_listed_with_filters_in_pages(hub: LoopbackHub):
    hub.page_size = 4
    for i in range(10):
        card = CARD.format(library="timm" if i % 2 else "diffusers", tag=f"t{i % 3}")
        hub.put_files(f"{'me' if i < 9 else 'you'}/m{i}", {"README.md": card})
    hub.put_files("me/secret", {"README.md": CARD.format(library="timm", tag="t0")}, private=True)
    assert [m.id for m in list_models(filter=["timm", "t0"])] == ["me/m3", "you/m9", "me/secret"]
    assert [m.id for m in list_models(filter=["timm", "t0"], token=False)] == ["me/m3", "you/m9"]
    hub.reset_log()
    everything = list(list_models(filter="dataset:me/photos", expand=["cardData", "sha", "siblings"]))
    assert len(everything) == 11 and hub.count() == 3
    assert everything[5].card_data is not None and everything[5].card_data.tags == ["tiny", "t2"]
    assert everything[5].sha == hub.commit("me/m5").oid and everything[5].private is None
    assert [m.id for m in list_models(author="you")] == ["you/m9"]
    assert [m.id for m in list_models(search="M3")] == ["me/m3"]
    assert [m.id for m in list_models(pipeline_tag="image-classification", limit=2)] == ["me/m0", "me/m1"]
    hub.put_files("me/m4", {"a": "a"})
    hub.repo("me/m7").downloads = 5
    assert [m.id for m in list_models(sort="last_modified", limit=2)] == ["me/m4", "me/secret"]
    assert next(iter(list_models(sort="downloads", full=True))).siblings
    assert list(list_models(filter="nothing")) == []


def test_datasets_and_spaces_are_listed_apart(hub: LoopbackHub):
    hub.put_files("me/d", {"README.md": "---\nlanguage: en\nsize_categories: [n<1K]\n---\n"}, repo_type="dataset")
    hub.put_files("me/s", {"app.py": ""}, repo_type="space")
    api = HfApi()
    assert [d.id for d in api.list_datasets(filter="size_categories:n<1K", language="en")] == ["me/d"]
    assert [s.id for s in api.list_spaces()] == ["me/s"]
    assert api.dataset_info("me/d").tags == ["language:en", "size_categories:n<1K", "region:us"]
    assert list(list_models()) == []

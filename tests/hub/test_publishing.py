"""The real client publishes to the loopback Hub."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    create_repo,
)
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub import Call, LoopbackHub, Status

WEIGHTS = bytes(range(256)) * 40
CARD = "---\nlicense: mit\ntags:\n- tiny\n---\n# A card\n"


def test_repositories_are_made_moved_and_deleted(hub: LoopbackHub):
    api = HfApi()
    url = create_repo("me/x")
    assert (url, url.repo_id, url.endpoint) == (f"{hub.endpoint}/me/x", "me/x", hub.endpoint)
    with pytest.raises(HfHubHTTPError, match="already created") as error:
        api.create_repo("me/x")
    assert error.value.response.status_code == 409
    assert api.create_repo("me/x", exist_ok=True) == url
    assert api.create_repo("x", repo_type="dataset").repo_id == "me/x"
    assert api.create_repo("me/x", repo_type="space", space_sdk="gradio").repo_type == "space"
    api.move_repo("me/x", "me/y")
    assert api.model_info("me/y").id == api.model_info("me/x").id == "me/y"  # the old name leads to the new one
    api.delete_repo("me/y")
    api.delete_repo("me/y", missing_ok=True)
    assert not api.repo_exists("me/y")
    assert api.repo_exists("me/x", repo_type="dataset")


def test_a_folder_of_small_and_large_files_is_one_commit(hub: LoopbackHub, tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "README.md").write_text(CARD)
    (tmp_path / "sub" / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "sub" / "empty.bin").write_bytes(b"")
    (tmp_path / "skip.log").write_text("no")
    create_repo("me/x")
    hub.reset_log()
    commit = HfApi().upload_folder(repo_id="me/x", folder_path=tmp_path, ignore_patterns="*.log", commit_message="All")
    assert [(r.method, r.host, re.sub(r"/me.*?/x\b|[0-9a-f]{64}.*", "", r.path)) for r in hub.requests] == [
        ("POST", "hub", "/api/validate-yaml"),
        ("POST", "hub", "/api/validate-yaml"),  # the client asks for the folder and again for the commit
        ("POST", "hub", "/api/models/preupload/main"),
        ("POST", "hub", ".git/info/lfs/objects/batch"),
        ("PUT", "storage", "/upload/models/"),
        ("POST", "hub", ".git/info/lfs/objects/verify"),
        ("POST", "hub", "/api/models/commit/main"),
    ]
    assert hub.seen("PUT")[0].authorization is None
    assert hub.seen("PUT")[0].bytes_in == len(WEIGHTS)
    assert hub.read_files("me/x") == {
        "README.md": CARD.encode(),
        "sub/empty.bin": b"",
        "sub/model.safetensors": WEIGHTS,
    }
    head, first = hub.history("me/x")
    assert (head.oid, head.title, head.author, head.parent) == (commit.oid, "All", "me", first.oid)
    assert {path for path, blob in head.files.items() if blob.lfs} == {"sub/model.safetensors"}


def test_what_is_there_is_neither_sent_nor_committed_again(hub: LoopbackHub):
    api = HfApi()
    hub.put_files("me/x", {"a.txt": "a", "w.bin": WEIGHTS})
    head = hub.commit("me/x").oid
    hub.reset_log()
    same = [CommitOperationAdd("a.txt", b"a"), CommitOperationAdd("w.bin", WEIGHTS)]
    assert api.create_commit("me/x", same, commit_message="Same").oid == head
    assert hub.count("PUT") == hub.count(path="/commit/") == 0
    api.upload_file(path_or_fileobj=WEIGHTS, path_in_repo="other.bin", repo_id="me/x")
    assert hub.count("PUT") == 0  # the repository holds the content under another name
    assert len(hub.history("me/x")) == 3


def test_large_files_go_first_and_are_committed_later(hub: LoopbackHub):
    api = HfApi()
    create_repo("me/x")
    operations = []
    for i in range(3):
        operations.append(CommitOperationAdd(f"{i}.bin", WEIGHTS + bytes([i])))
        api.preupload_lfs_files("me/x", [operations[i]])
    assert hub.read_files("me/x") == {}
    hub.reset_log()
    api.create_commit("me/x", operations, commit_message="Later")
    assert [r.path for r in hub.requests] == ["/api/models/me/x/commit/main"]
    assert hub.read_files("me/x")["2.bin"] == WEIGHTS + b"\2"


def test_a_large_file_that_never_arrived_is_refused(hub: LoopbackHub):
    create_repo("me/x")
    operation = CommitOperationAdd("w.bin", WEIGHTS)
    operation._upload_mode, operation._is_uploaded, operation._should_ignore = "lfs", True, False
    with pytest.raises(BadRequestError, match="LFS pointer pointed to a file that does not exist"):
        HfApi().create_commit("me/x", [operation], commit_message="Nothing")
    assert len(hub.history("me/x")) == 1


def test_content_that_changes_while_it_is_sent_is_refused(hub: LoopbackHub, tmp_path: Path):
    create_repo("me/x")
    (tmp_path / "w.bin").write_bytes(WEIGHTS)
    hub.faults.add(Call(lambda: (tmp_path / "w.bin").write_bytes(WEIGHTS[::-1])), path="objects/batch")
    with pytest.raises(RuntimeError, match="Error while uploading 'w.bin'") as error:
        HfApi().upload_file(path_or_fileobj=tmp_path / "w.bin", path_in_repo="w.bin", repo_id="me/x")
    assert isinstance(error.value.__cause__, BadRequestError)


def test_files_and_folders_are_deleted_and_copied(hub: LoopbackHub):
    api = HfApi()
    hub.put_files("me/x", {"a.txt": "a", "w.bin": WEIGHTS, "old/1.txt": "1", "old/sub/2.txt": "2"})
    operations = [
        CommitOperationDelete("old/"),
        CommitOperationDelete("a.txt"),
        CommitOperationCopy("a.txt", "b.txt"),
        CommitOperationCopy("w.bin", "copies/w.bin"),
    ]
    api.create_commit("me/x", operations, commit_message="Tidy")
    assert hub.read_files("me/x") == {"b.txt": b"a", "copies/w.bin": WEIGHTS, "w.bin": WEIGHTS}
    with pytest.raises(RemoteEntryNotFoundError, match="A file with this name doesn't exist"):
        api.delete_file("a.txt", "me/x")
    with pytest.raises(BadRequestError, match="file and a folder"):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="b.txt/c.txt", repo_id="me/x")


def test_a_commit_on_another_parent_is_refused(hub: LoopbackHub):
    api = HfApi()
    parent = hub.put_files("me/x", {"index.json": "0"})
    hub.faults.add(Call(lambda: hub.put_files("me/x", {"index.json": "theirs"})), path="/commit/main")

    def publish() -> None:
        api.upload_file(path_or_fileobj=b"mine", path_in_repo="index.json", repo_id="me/x", parent_commit=parent)

    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as error:
        publish()
    assert error.value.response.status_code == 412
    assert hub.read_files("me/x") == {"index.json": b"theirs"}
    parent = hub.commit("me/x").oid[:7]
    publish()
    assert hub.read_files("me/x") == {"index.json": b"mine"}


def test_of_two_publishers_at_once_one_wins_and_both_arrive_when_they_try_again(hub: LoopbackHub):
    hub.put_files("me/x", {"index.txt": ""})
    meet = threading.Barrier(2, timeout=20)
    hub.faults.add(Call(meet.wait), path="/commit/main", times=2)

    def publish(name: str) -> int:
        api = HfApi(token=hub.add_user("me"))
        for attempt in range(1, 6):
            head = api.model_info("me/x").sha
            text = hub.read_files("me/x", str(head))["index.txt"] + name.encode()
            files = [CommitOperationAdd("index.txt", text), CommitOperationAdd(f"{name}.bin", WEIGHTS + name.encode())]
            try:
                api.create_commit("me/x", files, commit_message=name, parent_commit=head)
                return attempt
            except HfHubHTTPError as error:
                assert error.response.status_code == 412
        raise AssertionError("never got through")

    with ThreadPoolExecutor() as pool:
        assert sorted(pool.map(publish, "ab")) == [1, 2]
    assert sorted(hub.read_files("me/x")["index.txt"]) == sorted(b"ab")
    assert {"a.bin", "b.bin"} < hub.read_files("me/x").keys()


def test_branches_tags_and_references(hub: LoopbackHub):
    api = HfApi()
    old = hub.put_files("me/x", {"a.txt": "old"})
    api.create_branch("me/x", branch="feature/a")
    api.create_tag("me/x", tag="v1", tag_message="First")
    new = api.upload_file(path_or_fileobj=b"new", path_in_repo="a.txt", repo_id="me/x", revision="feature/a").oid
    refs = api.list_repo_refs("me/x")
    assert {r.ref: r.target_commit for r in [*refs.branches, *refs.tags]} == {
        "refs/heads/main": old,
        "refs/heads/feature/a": new,
        "refs/tags/v1": old,
    }
    with pytest.raises(HfHubHTTPError) as error:
        api.create_tag("me/x", tag="v1")
    assert error.value.response.status_code == 409
    api.create_tag("me/x", tag="v1", exist_ok=True)
    api.create_branch("me/x", branch="feature/a", exist_ok=True)
    api.create_branch("me/x", branch="before", revision=old)
    api.delete_branch("me/x", branch="feature/a")
    api.delete_tag("me/x", tag="v1")
    refs = api.list_repo_refs("me/x")
    assert ([b.name for b in refs.branches], refs.tags) == (["main", "before"], [])
    with pytest.raises(RevisionNotFoundError):
        api.upload_file(path_or_fileobj=b"", path_in_repo="b", repo_id="me/x", revision="feature/a")


def test_a_stranger_opens_a_pull_request_and_the_owner_merges_it(hub: LoopbackHub):
    hub.put_files("me/x", {"a.txt": "a", "gone.txt": "g"})
    theirs = HfApi(token=hub.add_user("you"))
    operations = [CommitOperationAdd("b.bin", WEIGHTS), CommitOperationDelete("gone.txt")]
    pull = theirs.create_commit("me/x", operations, commit_message="Please", create_pr=True)
    assert (pull.pr_num, pull.pr_revision) == (1, "refs/pr/1")
    hub.put_files("me/x", {"c.txt": "since"})
    assert hub.read_files("me/x", "refs/pr/1") == {"a.txt": b"a", "b.bin": WEIGHTS}
    assert [r.ref for r in theirs.list_repo_refs("me/x", include_pull_requests=True).pull_requests or []] == [
        "refs/pr/1"
    ]
    with pytest.raises(HfHubHTTPError, match="rights") as error:
        theirs.merge_pull_request("me/x", 1)
    assert error.value.response.status_code == 403
    HfApi().merge_pull_request("me/x", 1)
    assert hub.read_files("me/x") == {"a.txt": b"a", "b.bin": WEIGHTS, "c.txt": b"since"}
    assert [d.status for d in theirs.get_repo_discussions("me/x")] == ["merged"]


def test_cards_are_checked(hub: LoopbackHub):
    create_repo("me/x")
    ModelCard(CARD).validate()
    ModelCard(CARD).push_to_hub("me/x")
    assert ModelCard.load("me/x").data.license == "mit"
    with pytest.raises(ValueError, match='"license" must be one of'):
        ModelCard("---\nlicense: mine\n---\n").validate()
    with pytest.raises(ValueError, match=r"Invalid metadata in README.md.\n- YAML Metadata Error"):
        HfApi().upload_file(path_or_fileobj=b"---\ntags: [a\n---\n", path_in_repo="README.md", repo_id="me/x")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        HfApi().upload_file(path_or_fileobj=b"# No data\n", path_in_repo="README.md", repo_id="me/x")
    hub.faults.add(Status(200, "nothing said"), path="validate-yaml")  # the commit itself is checked as well
    bad = b"---\nmodel-index:\n- name: x\n  results:\n  - task: {}\n---\n"
    with pytest.raises(BadRequestError, match="task.type"):
        HfApi().upload_file(path_or_fileobj=bad, path_in_repo="README.md", repo_id="me/x")


def test_history_is_listed_and_squashed(hub: LoopbackHub):
    api = HfApi()
    hub.page_size = 2
    for text in "abc":
        hub.put_files("me/x", {"a.txt": text}, message=text)
    assert [c.title for c in api.list_repo_commits("me/x")] == ["c", "b", "a", "initial commit"]
    assert [c.title for c in api.list_repo_commits("me/x", revision=hub.history("me/x")[2].oid)] == [
        "a",
        "initial commit",
    ]
    api.super_squash_history("me/x", commit_message="All")
    assert [c.title for c in api.list_repo_commits("me/x")] == ["All"]


def test_nothing_is_published_where_nothing_is(hub: LoopbackHub):
    with pytest.raises(RepositoryNotFoundError, match="create_repo"):
        HfApi().upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id="me/none")

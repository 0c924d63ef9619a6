"""Who may read and write what on the loopback Hub, in the real client's own errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from tests.hub import LoopbackHub
from tests.hub.fixtures import TOKEN


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_who_am_i(hub: LoopbackHub):
    hub.add_org("lab", ["me", "you"])
    me = HfApi().whoami()
    assert (me["name"], [org["name"] for org in me["orgs"]]) == ("me", ["lab"])
    assert me["auth"]["accessToken"]["role"] == "write"
    with pytest.raises(HfHubHTTPError, match="Invalid user token") as error:
        HfApi(token="hf_wrong").whoami()
    assert status(error) == 401


def test_a_private_repository_looks_missing_to_strangers(hub: LoopbackHub):
    hub.put_files("me/x", {"a.txt": "a"}, private=True)
    you = hub.add_user("you")
    for token, code in ((you, 404), (False, 401)):
        for name in ("me/x", "me/none"):
            with pytest.raises(RepositoryNotFoundError) as error:
                HfApi(token=token).model_info(name)
            assert status(error) == code
            with pytest.raises(RepositoryNotFoundError):
                hf_hub_download(name, "a.txt", token=token)
            with pytest.raises(RepositoryNotFoundError):
                snapshot_download(name, token=token)
        assert [m.id for m in HfApi(token=token).list_models()] == []
    assert Path(hf_hub_download("me/x", "a.txt")).read_text() == "a"
    assert [m.id for m in HfApi().list_models()] == ["me/x"]
    HfApi().update_repo_settings("me/x", private=False)
    assert HfApi(token=False).model_info("me/x").private is False
    HfApi().create_repo("me/y", private=True)
    assert not HfApi(token=you).repo_exists("me/y")


def test_members_share_the_repositories_of_their_organization(hub: LoopbackHub):
    hub.add_org("lab", ["me", "you"])
    HfApi().create_repo("lab/x", private=True)
    theirs = HfApi(token=hub.add_user("you"))
    theirs.upload_file(path_or_fileobj=b"a", path_in_repo="a.txt", repo_id="lab/x")
    assert hub.commit("lab/x").author == "you"
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token=hub.add_user("she")).model_info("lab/x")


def test_a_gate_hides_files_but_not_information(hub: LoopbackHub):
    hub.put_files("me/x", {"a.txt": "a", "w.bin": b"\0" * 100})
    HfApi().update_repo_settings("me/x", gated="manual")
    you = hub.add_user("you")
    for token, code in ((you, 403), (False, 401)):
        assert HfApi(token=token).model_info("me/x").gated == "manual"
        for name in ("a.txt", "w.bin"):
            with pytest.raises(GatedRepoError) as error:
                hf_hub_download("me/x", name, token=token)
            assert status(error) == code
        with pytest.raises(GatedRepoError):
            HfApi(token=token).auth_check("me/x")
    hub.grant("me/x", "you")
    HfApi(token=you).auth_check("me/x")
    assert Path(hf_hub_download("me/x", "w.bin", token=you)).read_bytes() == b"\0" * 100


def test_a_reading_token_does_not_write(hub: LoopbackHub):
    hub.put_files("me/x", {"a.txt": "a"}, private=True)
    api = HfApi(token=hub.add_user("me", role="read"))
    assert Path(hf_hub_download("me/x", "a.txt", token=api.token)).read_text() == "a"
    writes = [
        lambda: api.upload_file(path_or_fileobj=b"b", path_in_repo="b.txt", repo_id="me/x"),
        lambda: api.create_repo("me/y"),
        lambda: api.delete_repo("me/x"),
        lambda: api.create_tag("me/x", tag="v1"),
        lambda: api.update_repo_settings("me/x", private=False),
        lambda: api.auth_check("me/x", write=True),
    ]
    for write in writes:
        with pytest.raises(HfHubHTTPError, match="403 Forbidden: Forbidden: you must use a write token") as error:
            write()
        assert status(error) == 403
    assert hub.read_files("me/x") == {"a.txt": b"a"} and ("models", "me/y") not in hub.store.repos


def test_nobody_writes_to_others(hub: LoopbackHub):
    hub.put_files("you/x", {"a.txt": "a"})
    for write in (
        lambda: HfApi().upload_file(path_or_fileobj=b"b", path_in_repo="b.txt", repo_id="you/x"),
        lambda: HfApi().create_repo("you/y"),
    ):
        with pytest.raises(HfHubHTTPError, match="don't have the rights") as error:
            write()
        assert status(error) == 403
    assert HfApi().create_repo("you/x", exist_ok=True).repo_id == "you/x"  # the client looks whether it is there
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(token=False).upload_file(path_or_fileobj=b"b", path_in_repo="b.txt", repo_id="you/x")
    assert status(error) == 401


def test_a_wrong_token_reads_nothing(hub: LoopbackHub):
    hub.put_files("me/x", {"a.txt": "a"})
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as error:
        HfApi(token="hf_wrong").model_info("me/x")
    assert status(error) == 401 and not isinstance(error.value, RepositoryNotFoundError)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        hf_hub_download("me/x", "a.txt", token="hf_wrong")
    assert Path(hf_hub_download("me/x", "a.txt", token=False)).read_text() == "a"
    assert [r.authorization for r in hub.requests][:2] == ["Bearer hf_wrong"] * 2
    assert TOKEN not in str(hub.requests)

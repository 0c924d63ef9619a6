"""What the loopback Hub is told: repositories made, changed and deleted, commits, branches and tags."""

from __future__ import annotations

import base64
import fnmatch
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.hub import cards
from tests.hub.routes import REPO_API, route
from tests.hub.store import Blob, Change, Commit, HubError, Repo, changed, is_large
from tests.hub.wire import Reply, Request

if TYPE_CHECKING:
    from tests.hub.server import LoopbackHub


def _url(hub: LoopbackHub, kind: str, repo_id: str) -> str:
    return f"{hub.endpoint}/{'' if kind == 'models' else kind + '/'}{repo_id}"


def _named(hub: LoopbackHub, request: Request, body: Mapping[str, Any]) -> tuple[str, str]:
    """The kind and the name in the body of a request; the namespace is the asker's own unless told."""
    hub.store.check_writes(request.token, None)
    owner = body.get("organization") or request.token.user
    return (body.get("type") or "model") + "s", f"{owner}/{body['name']}"


@route("POST", "/api/repos/create")
def create(hub: LoopbackHub, request: Request) -> Reply:
    body = request.json()
    kind, repo_id = _named(hub, request, body)
    hub.store.check_writes(request.token, repo_id.split("/")[0])
    url = _url(hub, kind, repo_id)
    if (kind, repo_id) in hub.store.repos:
        message = f"You already created this {kind[:-1]} repo: {repo_id}"
        return Reply.json({"error": message, "url": url}, 409, {"X-Error-Message": message})
    private = body.get("visibility") == "private" or bool(body.get("private"))
    repository = hub.store.create(kind, repo_id, private, body.get("sdk"))
    return Reply.json({"url": url, "name": repo_id, "id": repository.branches["main"][:24]}, 201)


@route("DELETE", "/api/repos/delete")
def delete(hub: LoopbackHub, request: Request) -> Reply:
    kind, repo_id = _named(hub, request, request.json())
    hub.store.find_own(request.token, kind, repo_id)
    del hub.store.repos[kind, repo_id]
    return Reply.json({})


@route("POST", "/api/repos/move")
def move(hub: LoopbackHub, request: Request) -> Reply:
    """Give a repository another name; its old name leads to the new one."""
    body = request.json()
    kind, old, new = body["type"] + "s", body["fromRepo"], body["toRepo"]
    repository = hub.store.find_own(request.token, kind, old)
    hub.store.check_writes(request.token, new.split("/")[0])
    if (kind, new) in hub.store.repos:
        raise HubError(409, f"{new} exists")
    repository.id = new
    hub.store.repos[kind, new] = hub.store.repos.pop((kind, old))
    hub.store.moved[kind, old] = new
    return Reply.json({})


@route("PUT", REPO_API + "/settings")
def settings(hub: LoopbackHub, request: Request, kind: str, repo: str) -> Reply:
    repository, body = hub.store.find_own(request.token, kind, repo), request.json()
    if "visibility" in body or "private" in body:
        repository.private = body.get("visibility") == "private" or body.get("private") is True
    repository.gated = body.get("gated", repository.gated)
    return Reply.json({"private": repository.private, "gated": repository.gated})


@route("POST", "/api/validate-yaml")
def validate_yaml(hub: LoopbackHub, request: Request) -> Reply:
    """Check a card; the client asks before each commit of a README.md."""
    errors, warnings = cards.check(request.json()["content"])
    if "text/plain" in request.headers.get("Accept", ""):
        return Reply(400 if errors else 200, {"Content-Type": "text/plain"}, "\n".join(errors or ["OK"]).encode())
    report = {"errors": [{"message": m} for m in errors], "warnings": [{"message": m} for m in warnings]}
    return Reply.json(report, 400 if errors else 200)


@route("POST", REPO_API + r"/preupload/(?P<rev>[^/]+)")
def preupload(hub: LoopbackHub, request: Request, kind: str, repo: str, rev: str) -> Reply:
    """Say for each file whether it goes to LFS, and what is there now."""
    repository = hub.store.find_own(request.token, kind, repo, request.flag("create_pr"), unquote(rev))
    commit, body, answers = repository.at(unquote(rev)), request.json(), []
    gitignore = body.get("gitIgnore")
    if gitignore is None and ".gitignore" in commit.files:
        gitignore = commit.files[".gitignore"].data.decode()
    for item in body["files"]:
        path, sample = item["path"], base64.b64decode(item.get("sample", ""))
        mode = "lfs" if is_large(path, item["size"], sample, hub.lfs_threshold) else "regular"
        answer = {"path": path, "uploadMode": mode, "shouldIgnore": _ignored(path, gitignore or "")}
        if (there := commit.files.get(path)) is not None:
            answer["oid"] = there.etag
        answers.append(answer)
    return Reply.json({"files": answers, "commitOid": commit.oid})


def _ignored(path: str, gitignore: str) -> bool:
    patterns = [line.strip().rstrip("/") for line in gitignore.splitlines() if line.strip() and line[0] != "#"]
    parts = path.split("/")
    return any(fnmatch.fnmatch(name, p) for p in patterns for name in [*parts, path])


@route("POST", REPO_API + r"/commit/(?P<rev>[^/]+)")
def commit(hub: LoopbackHub, request: Request, kind: str, repo: str, rev: str) -> Reply:
    """Commit at once, or open a pull request; refuse when somebody else was faster."""
    revision, pull = unquote(rev), request.flag("create_pr")
    repository = hub.store.find_own(request.token, kind, repo, pull, revision)
    lines = [json.loads(line) for line in request.body.splitlines() if line]
    header = next(line["value"] for line in lines if line["key"] == "header")
    parent = _parent(repository, revision, header.get("parentCommit"), pull)
    files = changed(
        parent.files, [_change(repository, line["key"], line["value"]) for line in lines if line is not lines[0]]
    )
    readme = files.get("README.md")
    if readme is not None and readme != parent.files.get("README.md") and not readme.lfs:
        errors, _ = cards.check(readme.data.decode(errors="replace"))
        if errors:
            raise HubError(400, "Invalid metadata in README.md: " + " ".join(errors))
    new_commit = repository.add_commit(
        parent, files, header["summary"], header.get("description", ""), request.token.user
    )
    url = _url(hub, kind, repository.id)
    answer = {
        "success": True,
        "commitOid": new_commit.oid,
        "commitUrl": f"{url}/commit/{new_commit.oid}",
        "hookOutput": "",
    }
    if pull:
        number = len(repository.pulls) + 1
        repository.pulls[number] = new_commit.oid
        answer["pullRequestUrl"] = f"{url}/discussions/{number}"
    else:
        repository.point(revision, new_commit.oid)
    return Reply.json(answer)


def _parent(repo: Repo, revision: str, oid: str | None, pull: bool) -> Commit:
    head = repo.at(revision)
    if not pull and revision.removeprefix("refs/heads/") not in repo.branches and not revision.startswith("refs/pr/"):
        raise HubError(400, f"Commits go to a branch or a pull request, which {revision!r} is not")
    if oid is None:
        return head
    if pull:
        return repo.at(oid)
    if len(oid) < 7 or not head.oid.startswith(oid):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    return head


def _change(repo: Repo, key: str, value: Mapping[str, Any]) -> Change:
    if key == "file":
        if value.get("encoding") == "base64":
            return Change(value["path"], Blob(base64.b64decode(value["content"])))
        return Change(value["path"], Blob(value["content"].encode()))
    if key == "lfsFile":
        blob = repo.uploaded.get(value["oid"])
        if blob is None or value.get("size", blob.size) != blob.size:
            message = "Your push was rejected because an LFS pointer pointed to a file that does not exist."
            raise HubError(400, f"{message} Offending file: - {value['path']}")
        return Change(value["path"], blob)
    if key in ("deletedFile", "deletedFolder"):
        return Change(value["path"], folder=key == "deletedFolder")
    raise HubError(400, f"Unknown operation: {key}")


@route("POST", REPO_API + r"/branch/(?P<name>[^/]+)")
def create_branch(hub: LoopbackHub, request: Request, kind: str, repo: str, name: str) -> Reply:
    repository, name = hub.store.find_own(request.token, kind, repo), unquote(name)
    start = repository.at(request.json().get("startingPoint") or "main")
    return _add_ref(repository, repository.branches, "branch", name, start.oid)


@route("POST", REPO_API + r"/tag/(?P<rev>[^/]+)")
def create_tag(hub: LoopbackHub, request: Request, kind: str, repo: str, rev: str) -> Reply:
    repository = hub.store.find_own(request.token, kind, repo)
    return _add_ref(repository, repository.tags, "tag", request.json()["tag"], repository.at(unquote(rev)).oid)


def _add_ref(repo: Repo, refs: dict[str, str], what: str, name: str, oid: str) -> Reply:
    if name in repo.branches or name in repo.tags:
        raise HubError(409, f"Reference already exists: the {what} {name!r} cannot be created")
    refs[name] = oid
    return Reply.json({}, 201)


@route("DELETE", REPO_API + r"/(?P<what>branch|tag)/(?P<name>[^/]+)")
def delete_ref(hub: LoopbackHub, request: Request, kind: str, repo: str, what: str, name: str) -> Reply:
    repository, name = hub.store.find_own(request.token, kind, repo), unquote(name)
    refs = repository.branches if what == "branch" else repository.tags
    if name == "main" and what == "branch":
        raise HubError(403, "Cannot delete the main branch")
    if name not in refs:
        raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
    del refs[name]
    return Reply.json({})


@route("POST", REPO_API + r"/super-squash/(?P<rev>[^/]+)")
def squash(hub: LoopbackHub, request: Request, kind: str, repo: str, rev: str) -> Reply:
    """Replace a branch's history by one commit of its files."""
    repository, branch = hub.store.find_own(request.token, kind, repo), unquote(rev)
    title = request.json().get("message") or f"Super-squash branch '{branch}' using huggingface_hub"
    repository.point(
        branch, repository.add_commit(None, repository.at(branch).files, title, author=request.token.user).oid
    )
    return Reply.json({})


@route("POST", REPO_API + r"/discussions/(?P<number>\d+)/merge")
def merge(hub: LoopbackHub, request: Request, kind: str, repo: str, number: str) -> Reply:
    """Bring a pull request into main: its changes against where it began, on what main is now."""
    repository = hub.store.find_own(request.token, kind, repo)
    tip, head = repository.at(f"refs/pr/{number}"), repository.at("main")
    above = {c.oid for c in repository.history(head)}
    base = next(c for c in repository.history(tip) if c.oid in above).files
    changes = [Change(path) for path in base if path not in tip.files and path in head.files]
    changes += [Change(path, blob) for path, blob in tip.files.items() if base.get(path) != blob]
    new_commit = repository.add_commit(head, changed(head.files, changes), tip.title, author=request.token.user)
    repository.point("main", new_commit.oid)
    repository.merged.add(int(number))
    return Reply.json({"commitOid": new_commit.oid})

"""Files of the loopback Hub: resolve, the storage host with LFS bodies, and uploads to it."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlencode

from tests.hub.routes import REPO_WEB, route
from tests.hub.store import Blob, Commit, HubError, Repo
from tests.hub.wire import Reply, Request

if TYPE_CHECKING:
    from tests.hub.server import LoopbackHub

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def _file(
    hub: LoopbackHub, request: Request, kind: str, repo_id: str, rev: str, path: str
) -> tuple[Repo, Commit, Blob]:
    repo = hub.store.find_open(request.token, kind, repo_id)
    commit = repo.at(rev)
    if path not in commit.files:
        raise HubError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.oid})
    return repo, commit, commit.files[path]


@route("GET HEAD", REPO_WEB + r"/resolve/(?P<rev>[^/]+)/(?P<path>.+)")
def resolve(hub: LoopbackHub, request: Request, kind: str | None, repo: str, rev: str, path: str) -> Reply:
    """Send a file, or to where it is: LFS on the storage host, files of public repositories to a pinned address."""
    kind, path = kind or "models", unquote(path)
    repository, commit, blob = _file(hub, request, kind, repo, unquote(rev), path)
    if blob.lfs:
        headers = {
            "X-Repo-Commit": commit.oid,
            "X-Linked-Size": str(blob.size),
            "X-Linked-ETag": f'"{blob.sha256}"',
            "Location": _signed(hub, f"/lfs/{kind}/{repo}/{blob.sha256}", name=path.rsplit("/", 1)[-1]),
        }
        return Reply(302, headers)
    if hub.pins and blob.size and not repository.private and not repository.gated:
        address = f"/api/resolve-cache/{kind}/{repo}/{commit.oid}/{quote(path)}"
        return Reply(307, {"X-Repo-Commit": commit.oid, "Location": f"{address}?{urlencode({'etag': blob.etag})}"})
    return _send(request, blob, {"X-Repo-Commit": commit.oid})


@route("GET HEAD", r"/api/resolve-cache/(?P<kind>\w+)/(?P<repo>[^/]+/[^/]+)/(?P<rev>[^/]+)/(?P<path>.+)")
def resolve_cache(hub: LoopbackHub, request: Request, kind: str, repo: str, rev: str, path: str) -> Reply:
    _, commit, blob = _file(hub, request, kind, repo, rev, unquote(path))
    return _send(request, blob, {"X-Repo-Commit": commit.oid})


def _send(request: Request, blob: Blob, headers: dict[str, str]) -> Reply:
    headers = {
        **headers,
        "ETag": f'"{blob.etag}"',
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    if request.headers.get("If-None-Match", "").strip('W/"') == blob.etag:
        return Reply(304, headers)
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if match is None or match[0] == "bytes=-":
        return Reply(200, headers, blob.data)
    first = int(match[1]) if match[1] else max(0, blob.size - int(match[2]))
    last = min(int(match[2]), blob.size - 1) if match[1] and match[2] else blob.size - 1
    if first > last:
        return Reply.error(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{blob.size}"})
    return Reply(206, headers | {"Content-Range": f"bytes {first}-{last}/{blob.size}"}, blob.data[first : last + 1])


def _signed(hub: LoopbackHub, path: str, **query: str) -> str:
    """An address on the storage host that needs no token."""
    signature = hmac.new(hub.secret, path.encode(), "sha256").hexdigest()
    return f"{hub.storage_endpoint}{path}?{urlencode({**query, 'Signature': signature})}"


def _check_signature(hub: LoopbackHub, request: Request) -> None:
    signature = hmac.new(hub.secret, request.path.encode(), "sha256").hexdigest()
    if request.host != "storage" or request.one("Signature") != signature:
        raise HubError(403, "The request signature does not match")


@route("GET HEAD", r"/lfs/(?P<kind>\w+)/(?P<repo>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})")
def stored(hub: LoopbackHub, request: Request, kind: str, repo: str, oid: str) -> Reply:
    """The body of an LFS file, for whoever holds a signed address."""
    _check_signature(hub, request)
    repository = hub.store.repos.get((kind, repo))
    if repository is None or oid not in repository.uploaded:
        raise HubError(404, "No such object")
    return _send(
        request, repository.uploaded[oid], {"Content-Disposition": f'inline; filename="{request.one("name")}"'}
    )


@route("POST", REPO_WEB + r"\.git/info/lfs/objects/batch")
def lfs_batch(hub: LoopbackHub, request: Request, kind: str | None, repo: str) -> Reply:
    """Say where to put each object; nowhere if the repository holds it."""
    kind, body = kind or "models", request.json()
    # An upload for a pull request names no revision
    revision = body.get("ref", {}).get("name")
    repository = hub.store.find_own(request.token, kind, repo, revision is None, revision)
    objects = []
    for item in body["objects"]:
        oid, size = item["oid"], item["size"]
        answer = {"oid": oid, "size": size, "authenticated": True}
        if oid not in repository.uploaded:
            address = _signed(hub, f"/upload/{kind}/{repo}/{oid}/{size}")
            verify = request.endpoint + request.path.removesuffix("batch") + "verify"
            answer["actions"] = {"upload": {"href": address, "header": {}}, "verify": {"href": verify, "header": {}}}
        objects.append(answer)
    return Reply.json({"transfer": "basic", "objects": objects})


@route("PUT", r"/upload/(?P<kind>\w+)/(?P<repo>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})/(?P<size>\d+)")
def upload(hub: LoopbackHub, request: Request, kind: str, repo: str, oid: str, size: str) -> Reply:
    """Keep a body whose hash and size are those announced."""
    _check_signature(hub, request)
    if len(request.body) != int(size) or hashlib.sha256(request.body).hexdigest() != oid:
        raise HubError(400, "The content does not match the size and the sha256 that were announced")
    hub.store.repos[kind, repo].uploaded[oid] = Blob(request.body, lfs=True)
    return Reply(200, {"ETag": f'"{oid}"'})


@route("POST", REPO_WEB + r"\.git/info/lfs/objects/verify")
def verify(hub: LoopbackHub, request: Request, kind: str | None, repo: str) -> Reply:
    """Tell the client that an object arrived whole."""
    repository, body = hub.store.find_open(request.token, kind or "models", repo), request.json()
    hub.store.check_writes(request.token, None)
    blob = repository.uploaded.get(body["oid"])
    if blob is None or blob.size != body["size"]:
        raise HubError(404, "The object was not uploaded")
    return Reply.json({})

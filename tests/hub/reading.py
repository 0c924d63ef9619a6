"""What the loopback Hub tells: people, repositories, listings, trees and histories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from tests.hub import views
from tests.hub.routes import REPO_API, page, route
from tests.hub.store import HubError, Repo, stamp
from tests.hub.wire import Reply, Request

if TYPE_CHECKING:
    from tests.hub.server import LoopbackHub

_SORTS: dict[str, Callable[[Repo], Any]] = {
    "lastModified": lambda repo: repo.at("main").date,
    "createdAt": lambda repo: repo.created,
    "downloads": lambda repo: repo.downloads,
    "likes": lambda repo: repo.likes,
    "trendingScore": lambda repo: repo.likes,
}


@route("GET", "/api/whoami-v2")
def whoami(hub: LoopbackHub, request: Request) -> Reply:
    token = request.token
    if token is None:
        raise HubError(401, "Invalid username or password.")
    role = {"write": "admin", "read": "read"}[token.role]
    orgs = [
        {"type": "org", "name": o, "roleInOrg": role} for o, members in hub.store.orgs.items() if token.user in members
    ]
    access = {"displayName": "loopback", "role": token.role}
    return Reply.json(
        {
            "type": "user",
            "id": token.user,
            "name": token.user,
            "fullname": token.user,
            "isPro": False,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": access},
        }
    )


@route("GET", r"/api/(?P<kind>models|datasets|spaces)")
def listing(hub: LoopbackHub, request: Request, kind: str) -> Reply:
    """List the repositories a reader sees, filtered, sorted, a page at a time."""
    repositories = [
        repo for (k, _), repo in hub.store.repos.items() if k == kind and hub.store.sees(request.token, repo)
    ]
    repositories = [repo for repo in repositories if _matches(request, repo)]
    if (sort := request.one("sort")) is not None:
        if sort not in _SORTS:
            raise HubError(400, f'"sort" must be one of {sorted(_SORTS)}')
        repositories.sort(key=_SORTS[sort], reverse=request.one("direction") != "1")
    limit = int(request.one("limit") or hub.page_size)
    part, headers = page(request, repositories, max(1, min(limit, hub.page_size)))
    fields: Sequence[str] = request.query.get("expand") or (views.FULL if request.flag("full") else views.LISTED)
    fields = [*fields, "cardData"] if request.flag("cardData") else fields
    return Reply.json([views.info(repo, repo.at("main"), fields) for repo in part], headers=headers)


def _matches(request: Request, repo: Repo) -> bool:
    author, search, gated = request.one("author"), request.one("search"), request.one("gated")
    if author is not None and repo.owner != author:
        return False
    if search is not None and search.lower() not in repo.id.lower():
        return False
    if gated is not None and request.flag("gated") != bool(repo.gated):
        return False
    tags = {*request.query.get("filter", []), *request.query.get("pipeline_tag", [])}
    return not tags or tags <= set(views.repo_tags(repo, repo.at("main")))


@route("GET", REPO_API + r"(?:/revision/(?P<rev>[^/]+))?")
def info(hub: LoopbackHub, request: Request, kind: str, repo: str, rev: str | None) -> Reply:
    repository = hub.store.find(request.token, kind, repo)
    commit = repository.at(unquote(rev or "main"))
    fields = request.query.get("expand") or views.WHOLE
    return Reply.json(views.info(repository, commit, fields, blobs=request.flag("blobs")))


@route("GET", REPO_API + r"/auth-check(?P<write>/write)?")
def auth_check(hub: LoopbackHub, request: Request, kind: str, repo: str, write: str | None) -> Reply:
    (hub.store.find_own if write else hub.store.find_open)(request.token, kind, repo)
    return Reply.json({})


@route("GET", REPO_API + r"/tree/(?P<rev>[^/]+)(?:/(?P<path>.*))?")
def tree(hub: LoopbackHub, request: Request, kind: str, repo: str, rev: str, path: str | None) -> Reply:
    repository = hub.store.find(request.token, kind, repo)
    commit, expand = repository.at(unquote(rev)), request.flag("expand")
    paths = views.tree_paths(commit, unquote(path or "").strip("/"), request.flag("recursive"))
    limit = int(request.one("limit") or hub.page_size)
    part, headers = page(request, paths, max(1, min(limit, 50 if expand else hub.page_size)))
    return Reply.json(views.entries(repository, commit, part, expand), headers=headers)


@route("POST", REPO_API + r"/paths-info/(?P<rev>[^/]+)")
def paths_info(hub: LoopbackHub, request: Request, kind: str, repo: str, rev: str) -> Reply:
    repository = hub.store.find(request.token, kind, repo)
    body = request.json() if "json" in request.headers.get("Content-Type", "") else parse_qs(request.body.decode())
    expand = str(body.get("expand", [""])).lower() in ("['true']", "true")
    paths = [path.strip("/") for path in body.get("paths", [])]
    return Reply.json(views.entries(repository, repository.at(unquote(rev)), paths, expand))


@route("GET", REPO_API + r"/refs")
def refs(hub: LoopbackHub, request: Request, kind: str, repo: str) -> Reply:
    repository = hub.store.find(request.token, kind, repo)
    return Reply.json(views.refs(repository, pulls=request.flag("include_prs")))


@route("GET", REPO_API + r"/commits/(?P<rev>[^/]+)")
def commits(hub: LoopbackHub, request: Request, kind: str, repo: str, rev: str) -> Reply:
    repository = hub.store.find(request.token, kind, repo)
    history = list(repository.history(repository.at(unquote(rev))))
    part, headers = page(request, history, min(hub.page_size, 1000))
    return Reply.json(
        [views.commit_entry(commit) for commit in part], headers=headers | {"X-Total-Count": str(len(history))}
    )


@route("GET", REPO_API + r"/discussions")
def discussions(hub: LoopbackHub, request: Request, kind: str, repo: str) -> Reply:
    """List the pull requests; other discussions there are none."""
    repository = hub.store.find(request.token, kind, repo)
    items = []
    for number, oid in sorted(repository.pulls.items(), reverse=True):
        commit = repository.commits[oid]
        state = "merged" if number in repository.merged else "open"
        items.append(
            {
                "num": number,
                "title": commit.title,
                "status": state,
                "isPullRequest": True,
                "author": {"name": commit.author},
                "createdAt": stamp(commit.date),
                "repo": {"name": repository.id, "type": kind[:-1]},
            }
        )
    return Reply.json({"discussions": items, "count": len(items), "start": 0})

"""What the loopback Hub says about its repositories, as JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from tests.hub import cards
from tests.hub.store import Blob, Commit, HubError, Repo, stamp

Json = dict[str, Any]
LISTED = ("likes", "private", "downloads", "tags", "pipeline_tag", "library_name", "createdAt")
FULL = (*LISTED, "author", "sha", "lastModified", "gated", "disabled", "siblings")
_NEVER = (  # known to the client, but without a value here
    "baseModels childrenModelCount citation config datasets description evalResults gguf host inference "
    "inferenceProviderMapping mainSize mask_token models paperswithcode_id resourceGroup runtime subdomain "
    "transformersInfo widgetData"
)
WHOLE = (*FULL, "cardData", "safetensors", "usedStorage", "model-index", "spaces")


def card_text(commit: Commit) -> str | None:
    blob = commit.files.get("README.md")
    return blob.data.decode(errors="replace") if blob else None


def repo_tags(repo: Repo, commit: Commit) -> list[str]:
    return cards.tags(repo.kind, card_text(commit), commit.files)


def info(repo: Repo, commit: Commit, fields: Iterable[str], blobs: bool = False) -> Json:
    """The chosen fields of a repository at a commit; fields without a value are left out."""
    data = cards.card_data(card_text(commit)) or {}
    makers: dict[str, Any] = {
        "author": lambda: repo.owner,
        "cardData": lambda: data or None,
        "createdAt": lambda: stamp(repo.created),
        "disabled": lambda: False,
        "downloads": lambda: repo.downloads,
        "downloadsAllTime": lambda: repo.downloads,
        "gated": lambda: repo.gated,
        "lastModified": lambda: stamp(commit.date),
        "library_name": lambda: data.get("library_name"),
        "likes": lambda: repo.likes,
        "model-index": lambda: data.get("model-index"),
        "pipeline_tag": lambda: data.get("pipeline_tag"),
        "private": lambda: repo.private,
        "safetensors": lambda: parameters(commit),
        "sdk": lambda: repo.sdk,
        "sha": lambda: commit.oid,
        "siblings": lambda: [_sibling(path, blob, blobs) for path, blob in sorted(commit.files.items())],
        "spaces": list,
        "tags": lambda: repo_tags(repo, commit),
        "trendingScore": lambda: repo.likes,
        "usedStorage": lambda: sum(b.size for b in {b.oid: b for b in commit.files.values()}.values()),
    }
    makers |= dict.fromkeys(_NEVER.split(), lambda: None)
    answer: Json = {"_id": hashlib.sha1(f"{repo.kind}/{repo.id}".encode()).hexdigest()[:24], "id": repo.id}
    if repo.kind == "models":
        answer["modelId"] = repo.id
    for name in dict.fromkeys(fields):
        if name not in makers:
            raise HubError(400, f'"expand" must be one of {sorted(makers)}: {name!r}')
        if (value := makers[name]()) is not None:
            answer[name] = value
    return answer


def _sibling(path: str, blob: Blob, blobs: bool) -> Json:
    if not blobs:
        return {"rfilename": path}
    sibling: Json = {"rfilename": path, "blobId": blob.oid, "size": blob.size}
    if blob.lfs:
        sibling["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
    return sibling


def parameters(commit: Commit) -> Json | None:
    """Parameters by type in the safetensors files at the root, as the Hub counts them."""
    total: dict[str, int] = {}
    for path, blob in commit.files.items():
        if path.endswith(".safetensors") and "/" not in path:
            size = int.from_bytes(blob.data[:8], "little")
            for dtype, count in _header_parameters(bytes(blob.data[8 : 8 + size])):
                total[dtype] = total.get(dtype, 0) + count
    return {"parameters": total, "total": sum(total.values())} if total else None


@lru_cache(maxsize=4096)
def _header_parameters(header: bytes) -> tuple[tuple[str, int], ...]:
    try:
        tensors = json.loads(header)
    except ValueError:  # what a test puts there may be no safetensors
        return ()
    return tuple((t["dtype"], math.prod(t["shape"])) for name, t in tensors.items() if name != "__metadata__")


def file_entry(path: str, blob: Blob, last: Commit | None = None) -> Json:
    entry: Json = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
    return entry | _last(last)


def folder_entry(path: str, commit: Commit, last: Commit | None = None) -> Json:
    inside = "".join(f"{p}\0{b.oid}\n" for p, b in sorted(commit.files.items()) if p.startswith(path + "/"))
    return {"type": "directory", "oid": hashlib.sha1(inside.encode()).hexdigest(), "size": 0, "path": path} | _last(
        last
    )


def _last(commit: Commit | None) -> Json:
    if commit is None:
        return {}
    return {"lastCommit": {"id": commit.oid, "title": commit.title, "date": stamp(commit.date)}}


def last_change(repo: Repo, commit: Commit, path: str) -> Commit:
    """The commit that last touched a file or a folder."""

    def there(c: Commit | None) -> dict[str, str]:
        files = c.files if c else {}
        return {p: b.oid for p, b in files.items() if p == path or p.startswith(path + "/")}

    for current in repo.history(commit):
        above = repo.commits[current.parent] if current.parent else None
        if there(current) != there(above):
            return current
    return commit


def folders(commit: Commit) -> set[str]:
    return {"/".join(path.split("/")[:i]) for path in commit.files for i in range(1, path.count("/") + 1)}


def entries(repo: Repo, commit: Commit, paths: Iterable[str], expand: bool) -> list[Json]:
    """The entries of a tree at these paths; paths where nothing is are left out."""
    directories, answer = folders(commit), []
    for path in paths:
        last = last_change(repo, commit, path) if expand else None
        if path in commit.files:
            answer.append(file_entry(path, commit.files[path], last))
        elif path in directories:
            answer.append(folder_entry(path, commit, last))
    return answer


def tree_paths(commit: Commit, root: str, recursive: bool) -> list[str]:
    """What lies under a folder, sorted; directly under it unless recursive."""
    directories = folders(commit)
    if root and root not in directories:
        raise HubError(404, f'"{root}" does not exist on this revision', "EntryNotFound")
    prefix = f"{root}/" if root else ""
    under = (path for path in [*commit.files, *directories] if path.startswith(prefix))
    return sorted(path for path in under if recursive or "/" not in path[len(prefix) :])


def refs(repo: Repo, pulls: bool) -> Json:
    def ref(space: str, name: str, oid: str) -> Json:
        return {"name": name, "ref": f"refs/{space}/{name}", "targetCommit": oid}

    answer: Json = {
        "branches": [ref("heads", name, oid) for name, oid in repo.branches.items()],
        "converts": [],
        "tags": [ref("tags", name, oid) for name, oid in repo.tags.items()],
    }
    if pulls:
        answer["pullRequests"] = [ref("pr", str(number), oid) for number, oid in repo.pulls.items()]
    return answer


def commit_entry(commit: Commit) -> Json:
    return {
        "id": commit.oid,
        "title": commit.title,
        "message": commit.message,
        "authors": [{"user": commit.author}],
        "date": stamp(commit.date),
    }

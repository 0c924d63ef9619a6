"""The table of what the loopback Hub answers; the modules of answers fill it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from tests.hub.store import HubError
from tests.hub.wire import Reply, Request

REPO_API = r"/api/(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"
REPO_WEB = r"/(?:(?P<kind>datasets|spaces)/)?(?P<repo>(?!api/|datasets/|spaces/)[^/]+/[^/]+?)"


TABLE: list[tuple[str, re.Pattern[str], Callable[..., Reply]]] = []


def route(methods: str, pattern: str) -> Callable[[Callable[..., Reply]], Callable[..., Reply]]:
    """Register an answer for some methods and a pattern of (still quoted) paths; groups become arguments."""

    def register(function: Callable[..., Reply]) -> Callable[..., Reply]:
        TABLE.extend((method, re.compile(pattern), function) for method in methods.split())
        return function

    return register


def find(request: Request) -> tuple[Callable[..., Reply], dict[str, str]]:
    """The answer to a request and the parts of its path."""
    for method, pattern, function in TABLE:
        if method == request.method and (match := pattern.fullmatch(request.path)):
            return function, match.groupdict()
    raise HubError(404, f"The loopback Hub knows no {request.method} {request.path}")


def page(request: Request, items: Sequence[Any], size: int) -> tuple[Sequence[Any], dict[str, str]]:
    """One page of a listing, and the header that links to the next."""
    cursor = request.one("cursor")
    start = int(base64.urlsafe_b64decode(cursor)) if cursor else 0
    if start + size >= len(items):
        return items[start:], {}
    after = base64.urlsafe_b64encode(b"%d" % (start + size)).decode()
    query = urlencode(request.query | {"cursor": [after]}, doseq=True)
    return items[start : start + size], {"Link": f'<{request.endpoint}{request.path}?{query}>; rel="next"'}

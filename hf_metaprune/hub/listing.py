"""The Hub's list of models, with their cards.

The client makes an object of each card and fails at some cards, so that one bad card would end the list for everybody.
This module reads the Hub's answers itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..errors import HubError
from ..version import __version__
from .client import LIBRARY, hub_errors

EXPANDED_FIELDS = ("author", "cardData", "gated", "private", "sha")
MALFORMED = "the Hub's list of models is malformed: try again later"
MAX_ITEMS = 10_000
"""Most items of a page that are parsed one by one; the Hub sends 1,000."""
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.?[^"\\]*)*(?:"|\Z)|[\[\]{},]', re.DOTALL)
"""A string without an end goes on to the end of the page, or each of its quotes would be tried as a beginning."""


@dataclass(frozen=True)
class ListedModel:
    """A model in the Hub's list."""

    id: str
    """Id of the model's repo."""
    sha: str = ""
    """Commit of its main branch; empty if the Hub does not say it."""
    card: dict[str, Any] = field(default_factory=dict)
    """The YAML of its card."""

    @classmethod
    def from_item(cls, item: Any) -> ListedModel:
        """Read an item of the list; a field of another type than expected is left empty."""
        item = item if isinstance(item, dict) else {}
        repo_id, sha, card = (item.get(key) for key in ("id", "sha", "cardData"))
        return cls(
            repo_id if isinstance(repo_id, str) else "",
            sha if isinstance(sha, str) else "",
            card if isinstance(card, dict) else {},
        )


def list_models(tags: Sequence[str], owner: str | None, token: str | bool | None = None) -> Iterator[ListedModel]:
    """Yield all models that have some tags.

    Args:
        tags: tags that a model must have, all of them.
        owner: user or organization; None for all.
        token: a token; None for that of the user's login or of HF_TOKEN; False for none.

    Raises:
        HubError: the Hub cannot be reached, its list is malformed, or the token is wrong.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    query: dict[str, Any] = {"filter": list(tags), "expand": list(EXPANDED_FIELDS)}
    query |= {"author": owner} if owner else {}
    with hub_errors("the Hub", "search"):
        headers = build_hf_headers(token=token, library_name=LIBRARY, library_version=__version__)
        for item in _list_items(f"{constants.ENDPOINT}/api/models", query, headers):
            yield ListedModel.from_item(item)


def _list_items(url: str, query: dict[str, Any], headers: dict[str, str]) -> Iterator[Any]:
    """Yield the items of all pages of a list.

    Raises:
        HubError: a page is no list, or links to another host, which would get the token.
    """
    from huggingface_hub.utils import hf_raise_for_status, http_backoff

    host, visited_urls, params = urlsplit(url)[:2], set[str](), {"params": query}
    while url and url not in visited_urls:
        visited_urls.add(url)
        response = http_backoff("GET", url, headers=headers, **params)
        hf_raise_for_status(response)
        yield from _parse_items(response.text)
        link, params = str(response.links.get("next", {}).get("url") or ""), {}  # the link has the query in it
        url = urljoin(url, link) if link else ""
        if url and urlsplit(url)[:2] != host:
            raise HubError("the Hub's list of models goes on at another address, which is not asked")


def _parse_items(page: str) -> list[Any]:
    """Return the items of a page; an item that Python cannot parse is left out.

    JSON allows numbers of any length and any depth; the parser has limits of both, and its error names no item.

    Raises:
        HubError: the page is no list.
    """
    try:
        items = json.loads(page)
    except (ValueError, RecursionError):
        items = [item for part in _split_items(page) for item in _parse_item(part)]
    if not isinstance(items, list):
        raise HubError(MALFORMED)
    return items


def _parse_item(part: str) -> list[Any]:
    try:
        return [json.loads(part)]
    except (ValueError, RecursionError):
        return []


def _split_items(page: str) -> list[str]:
    """Return the text of each item of a list, found by commas and brackets.

    Raises:
        HubError: the page does not begin as a list, or does not end, or has too many items.
    """
    parts: list[str] = []
    depth = start = 0
    for token in _STRING_OR_BRACKET.finditer(page) if page.startswith("[") else ():
        if depth == 1 and token[0] in ",]":
            parts.append(page[start : token.start()])
        if depth == 0 or (depth == 1 and token[0] == ","):
            start = token.end()
        depth += (token[0] in "[{") - (token[0] in "]}")
    if depth or not 0 < len(parts) <= MAX_ITEMS:
        raise HubError(MALFORMED)
    return parts

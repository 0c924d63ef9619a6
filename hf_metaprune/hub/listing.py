"""The Hub's list of models, with their cards.

The client makes an object of each card, and some cards make it fail: one of them would end the list for everybody. So
what the Hub sends is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..errors import HubError
from ..version import __version__
from .client import LIBRARY, hub_errors

EXPAND = ("author", "cardData", "gated", "private", "sha")


@dataclass(frozen=True)
class ListedModel:
    """A model's id, the commit it is at (or nothing), and the YAML of its card."""

    id: str
    sha: str = ""
    card: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, item: Any) -> ListedModel:
        """From an item of the list; whatever is not of its type is left out."""
        item = item if isinstance(item, dict) else {}
        named, sha, card = (item.get(key) for key in ("id", "sha", "cardData"))
        known = named if isinstance(named, str) else "", sha if isinstance(sha, str) else ""
        return cls(*known, card if isinstance(card, dict) else {})


def list_models(tags: Sequence[str], owner: str | None, token: str | bool | None = None) -> Iterator[ListedModel]:
    """All models that have these tags, of one owner or of all.

    Raises:
        HubError: the Hub cannot be reached, or the token is wrong.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    asked: dict[str, Any] = {"filter": list(tags), "expand": list(EXPAND)} | ({"author": owner} if owner else {})
    with hub_errors("the Hub", "search"):
        headers = build_hf_headers(token=token, library_name=LIBRARY, library_version=__version__)
        for item in _pages(f"{constants.ENDPOINT}/api/models", asked, headers):
            yield ListedModel.from_item(item)


def _pages(url: str, asked: dict[str, Any], headers: dict[str, str]) -> Iterator[Any]:
    """The items of all pages of a list; unlike the client's, a link that leaves the Hub is not followed.

    Raises:
        HubError: there is such a link, which would get the token; or what comes is no list.
    """
    from huggingface_hub.utils import hf_raise_for_status, http_backoff

    host, seen, params = urlsplit(url)[:2], set[str](), {"params": asked}
    while url and url not in seen:
        seen.add(url)
        response = http_backoff("GET", url, headers=headers, **params)
        hf_raise_for_status(response)
        items = response.json()
        if not isinstance(items, list):
            raise HubError("the Hub's list of models is none")
        yield from items
        link, params = str(response.links.get("next", {}).get("url") or ""), {}  # which has its own query
        url = urljoin(url, link) if link else ""
        if url and urlsplit(url)[:2] != host:
            raise HubError("the Hub's list of models goes on at another address, which is not asked")

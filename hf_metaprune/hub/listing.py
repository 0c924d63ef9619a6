"""The Hub's list of models, with their cards.

The client makes an object of each card and fails at some cards, so that one bad card would end the list for everybody.
This module reads the Hub's answers itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..errors import HubError
from ..version import __version__
from .client import LIBRARY, hub_errors

EXPANDED_FIELDS = ("author", "cardData", "gated", "private", "sha")


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
        items = response.json()
        if not isinstance(items, list):
            raise HubError("the Hub's list of models is malformed: try again later")
        yield from items
        link, params = str(response.links.get("next", {}).get("url") or ""), {}  # the link has the query in it
        url = urljoin(url, link) if link else ""
        if url and urlsplit(url)[:2] != host:
            raise HubError("the Hub's list of models goes on at another address, which is not asked")

"""The Hugging Face Hub: one client, and its errors as ours, with what to do about them."""

from __future__ import annotations

import errno
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import (
    HubError,
    HubTroubleError,
    HubUnreachableError,
    MetaPruneError,
    MissingFileError,
    NotCachedError,
    PublishConflictError,
    StorageError,
    TokenError,
    reason,
)
from ..version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)

LIBRARY = "hf-metaprune"
"""Named in the client's requests, in cards as ``library_name``."""
TAG = "metaprune"
"""Tag of single pruned models: the card writes it, and `Bank.from_search` filters by it."""
BANK_TAG = "metaprune-bank"
"""Tag of banks."""

TOKEN = re.compile(r"\b(hf|api|oidc)_[A-Za-z0-9_-]{6,}")
WRITING = (
    "the token may not do that: in a repo of your own, make one that may (huggingface.co/settings/tokens), and "
    "log in with it; in another's, open a pull request (create_pr=True, --create-pr)"
)
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
CONNECT_SECONDS = 5.0
MOST_TROUBLES = 3
"""Files that the Hub may fail to give; more mean that all of it is in trouble: half an answer is worse than none."""
NETWORK_MODULES = frozenset({"httpx", "httpx2", "httpcore", "httpcore2"})
NO_CONNECTION = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"})
"""What these modules raise when nobody was reached; the rest is raised in the middle of an answer."""


class Patience:
    """Where one goes on without what cannot be had: tells trouble with a few files from that of the whole Hub."""

    def __init__(self) -> None:
        self.troubles = 0

    def ends(self, error: Exception) -> bool:
        """Whether it is no use to go on: the Hub cannot be reached, or failed to give more than `MOST_TROUBLES`.

        What may not be asked for is no trouble: the cache has what it has.
        """
        self.troubles += isinstance(error, HubTroubleError)
        one = isinstance(error, HubTroubleError) and self.troubles <= MOST_TROUBLES
        return isinstance(error, HubUnreachableError) and not one and not isinstance(error, NotCachedError)


def hub_api(token: str | bool | None = None) -> HfApi:
    """The Hub's client; without a token, that of the user's login or of HF_TOKEN."""
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name=LIBRARY, library_version=__version__)


def hub_answers() -> bool:
    """Return whether the Hub can be reached: at once, where its client would try for half a minute.

    A proxy may know what this machine does not, and offline mode asks nobody: both count as reachable, so that the
    client itself finds out.
    """
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    host, port = address.hostname or "", address.port or (443 if address.scheme == "https" else 80)
    if constants.HF_HUB_OFFLINE or (getproxies().get(address.scheme) and not proxy_bypass(host)):
        return True
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


@contextmanager
def hub_errors(repo_id: str, doing: str) -> Iterator[None]:
    """Turn what the Hub's client raises about a repo into a `MetaPruneError` that says what to do."""
    try:
        yield
    except MetaPruneError:
        raise
    except Exception as error:  # the client raises its own, httpx's, OSError and ValueError
        found = _translated(error, repo_id, doing)
        if found is None:
            raise
        raise found from None  # the client's own message may hold addresses with credentials


def _translated(error: BaseException, repo_id: str, doing: str) -> MetaPruneError | None:
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    what = f"cannot {doing} {repo_id}"
    cause = error.__cause__
    fetching = isinstance(error, (hub.LocalEntryNotFoundError, RuntimeError))
    if fetching and cause is not None and (isinstance(cause, hub.HfHubHTTPError) or _was_cut(cause)):
        error = cause  # the Hub was reached, and said no, or too little
    offline = "offline mode is set (HF_HUB_OFFLINE)"
    why = offline if constants.HF_HUB_OFFLINE else "the Hub cannot be reached, or may not be asked (local_files_only)"
    unreachable: list[tuple[Any, str]] = [
        (hub.OfflineModeIsEnabled, offline),
        (hub.LocalEntryNotFoundError, f"it is not in the cache, and {why}"),
    ]
    if isinstance(error, hub.LocalEntryNotFoundError) and isinstance(cause, hub.OfflineModeIsEnabled | None):
        return NotCachedError(f"{what}: it is not in the cache, and {why}")
    known: list[tuple[Any, str]] = [
        (hub.GatedRepoError, f"it is gated: ask for access on its page on the Hub, then {LOGIN}"),
        (hub.RepositoryNotFoundError, f"there is no such repo, or it is private: check the name, or {LOGIN}"),
        (hub.RevisionNotFoundError, "it has no such revision (branch, tag or commit)"),
        (hub.LocalTokenNotFoundError, f"there is no token: {LOGIN}"),
        (hub.HFValidationError, "this is no id of a repo; ids are owner/name"),
    ]
    if isinstance(error, hub.RemoteEntryNotFoundError):
        return MissingFileError(f"{what}: it has no such file")
    for kind, advice in unreachable:
        if isinstance(error, kind):
            return HubUnreachableError(f"{what}: {advice}")
    for kind, advice in known:
        if isinstance(error, kind):
            return HubError(f"{what}: {advice}")
    if isinstance(error, hub.HfHubHTTPError):
        return _of_status(error, what, "write" in doing)
    if _was_cut(error):
        return HubTroubleError(f"{what}: the connection was lost ({type(error).__name__}): try again")
    if _is_of_network(error) or isinstance(error, ConnectionError):
        return HubUnreachableError(
            f"{what}: the Hub cannot be reached ({type(error).__name__}): check the network, try again"
        )
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageError(errno.ENOSPC, f"{what}: the disk is full: free some space, or set HF_HOME to another")
        return HubError(f"{what}: {scrub(reason(error))}")
    if isinstance(error, (KeyError, AttributeError, TypeError)):  # the client takes answers as they should be
        log.debug("%s", what, exc_info=error)
        return HubError(f"{what}: the Hub's answer is not what it should be ({type(error).__name__}): try again later")
    if isinstance(error, (ValueError, RuntimeError)):
        why = f" ({scrub(reason(cause))})" if cause is not None else ""
        kept = "; what was sent is kept" if "write" in doing else ""
        return HubError(f"{what}: {scrub(reason(error))}{why}: try again{kept}")
    return None


def _is_of_network(error: BaseException | None) -> bool:
    return type(error).__module__.partition(".")[0] in NETWORK_MODULES


def _was_cut(error: BaseException | None) -> bool:
    """Whether a connection was made, and lost or silent before the end of the answer."""
    return _is_of_network(error) and type(error).__name__ not in NO_CONNECTION


def _of_status(error: Any, what: str, writing: bool) -> HubError:
    status = getattr(error.response, "status_code", 0)
    advice = {
        401: f"the token is missing or wrong: {LOGIN}",
        403: WRITING if writing else "you may not, or it is disabled: look at its page on the Hub",
        404: "it is not there",
        413: "the Hub says that it is too large",
    }.get(status, "")
    if status in (409, 412):
        return PublishConflictError(f"{what}: somebody else changed it meanwhile: try again")
    if status >= 500:
        return HubTroubleError(f"{what}: the Hub has trouble (status {status}): try again later")
    if status == 429:
        kept = "; what was sent is kept" if writing else ""
        return HubTroubleError(f"{what}: the Hub asks to wait (too many requests): try again in some minutes{kept}")
    said = scrub(str(getattr(error, "server_message", None) or ""))[:200]
    kind = TokenError if status == 401 or (status == 403 and writing) else HubError
    return kind(f"{what}: {advice or f'status {status}'}" + (f" ({said})" if said else ""))


def scrub(text: str) -> str:
    """The text without tokens."""
    return TOKEN.sub(r"\1_***", text)

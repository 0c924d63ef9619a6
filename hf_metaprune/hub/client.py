"""The Hugging Face Hub: one client, and the translation of its errors to ours, which say what to do."""

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
    MissingRepoError,
    NotCachedError,
    PublishConflictError,
    StorageError,
    TokenError,
    reason,
)
from ..files.names import TOKEN_KINDS
from ..version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)

LIBRARY = "hf-metaprune"
"""Name of this library in the client's requests, and in cards as ``library_name``."""
TAG = "metaprune"
"""Tag of single pruned models: the card writes it, and `Bank.from_search` filters by it."""
BANK_TAG = "metaprune-bank"
"""Tag of banks."""

TOKEN_PATTERN = re.compile(rf"\b({TOKEN_KINDS})_[A-Za-z0-9_-]{{6,}}")
WRITE_ADVICE = (
    "the token may not do that: for a repo of your own, make a token that may write (huggingface.co/settings/tokens) "
    "and log in with it; for somebody else's repo, open a pull request (create_pr=True, --create-pr)"
)
LOGIN_ADVICE = "log in with `hf auth login`, or set HF_TOKEN"
CONNECT_SECONDS = 5.0
MAX_TROUBLES = 3
"""Files that the Hub may fail to deliver; more mean that the whole Hub has trouble, and half an answer is useless."""
NETWORK_MODULES = frozenset({"httpx", "httpx2", "httpcore", "httpcore2"})
"""Modules whose exceptions are about the network."""
NO_CONNECTION_ERRORS = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"})
"""Exceptions of these modules that mean that no connection was made; all others interrupt an answer."""


class Patience:
    """A counter of failed files, for loops that skip such files: it tells when the whole Hub has trouble."""

    def __init__(self) -> None:
        self.troubles = 0

    def should_stop(self, error: Exception) -> bool:
        """Count an error, and return whether going on is useless.

        It is useless if the Hub cannot be reached, or failed to deliver more than `MAX_TROUBLES` files. A file that is
        not in the cache while the Hub may not be asked does not count.
        """
        self.troubles += isinstance(error, HubTroubleError)
        is_tolerable = isinstance(error, HubTroubleError) and self.troubles <= MAX_TROUBLES
        return isinstance(error, HubUnreachableError) and not is_tolerable and not isinstance(error, NotCachedError)


def hub_api(token: str | bool | None = None) -> HfApi:
    """Return the Hub's client.

    Args:
        token: a token; None for that of the user's login or of HF_TOKEN; False for none.
    """
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name=LIBRARY, library_version=__version__)


def hub_answers() -> bool:
    """Return whether the Hub can be reached, within `CONNECT_SECONDS`; its client would try for half a minute.

    The Hub counts as reachable behind a proxy, which may reach more than this machine, and in offline mode, which the
    client itself reports.
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
    """Turn what the Hub's client raises about a repo into a `MetaPruneError` that says what to do.

    Args:
        repo_id: the repo, for messages.
        doing: a verb that fits between "cannot" and the repo, such as "write to".

    Raises:
        HubError: the client failed; its subclasses say how.
        StorageError: the disk is full.
    """
    try:
        yield
    except MetaPruneError:
        raise
    except Exception as error:  # the client raises its own, httpx's, OSError and ValueError
        translation = _translate(error, repo_id, doing)
        if translation is None:
            raise
        raise translation from None  # the client's own message may hold addresses with credentials


def _translate(error: BaseException, repo_id: str, doing: str) -> MetaPruneError | None:
    """Return our error for one of the client's, or None for an error that has nothing to do with the Hub."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    what = f"cannot {doing} {repo_id}"
    cause = error.__cause__
    fetching = isinstance(error, (hub.LocalEntryNotFoundError, RuntimeError))
    if fetching and cause is not None and (isinstance(cause, hub.HfHubHTTPError) or _is_interruption(cause)):
        error = cause  # the Hub was reached, and refused or broke off
    offline = "offline mode is set (HF_HUB_OFFLINE)"
    why = offline if constants.HF_HUB_OFFLINE else "the Hub cannot be reached, or may not be asked (local_files_only)"
    unreachable: list[tuple[Any, str]] = [
        (hub.OfflineModeIsEnabled, offline),
        (hub.LocalEntryNotFoundError, f"it is not in the cache, and {why}"),
    ]
    if isinstance(error, hub.LocalEntryNotFoundError) and isinstance(cause, hub.OfflineModeIsEnabled | None):
        return NotCachedError(f"{what}: it is not in the cache, and {why}")
    refusals: list[tuple[Any, str]] = [
        (hub.GatedRepoError, f"it is gated: ask for access on its page on the Hub, then {LOGIN_ADVICE}"),
        (hub.RevisionNotFoundError, "it has no such revision (branch, tag or commit)"),
        (hub.LocalTokenNotFoundError, f"there is no token: {LOGIN_ADVICE}"),
        (hub.HFValidationError, "this is no id of a repo; ids are owner/name"),
    ]
    if isinstance(error, hub.RepositoryNotFoundError) and not isinstance(error, hub.GatedRepoError):
        advice = f"check the name, or {LOGIN_ADVICE}"
        return MissingRepoError(f"{what}: there is no such repo, or it is private: {advice}")
    if isinstance(error, hub.RemoteEntryNotFoundError):
        return MissingFileError(f"{what}: it has no such file")
    for kind, advice in unreachable:
        if isinstance(error, kind):
            return HubUnreachableError(f"{what}: {advice}")
    for kind, advice in refusals:
        if isinstance(error, kind):
            return HubError(f"{what}: {advice}")
    if isinstance(error, hub.HfHubHTTPError):
        return _status_error(error, what, "write" in doing)
    if _is_interruption(error):
        return HubTroubleError(f"{what}: the connection was lost ({type(error).__name__}): try again")
    if _is_network_error(error) or isinstance(error, ConnectionError):
        return HubUnreachableError(
            f"{what}: the Hub cannot be reached ({type(error).__name__}): check the network, try again"
        )
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageError(errno.ENOSPC, f"{what}: the disk is full: free some space, or set HF_HOME to another")
        return HubError(f"{what}: {scrub(reason(error))}")
    if isinstance(error, (KeyError, AttributeError, TypeError)):  # the client does not check answers
        log.debug("%s", what, exc_info=error)
        return HubError(f"{what}: the Hub's answer is malformed ({type(error).__name__}): try again later")
    if isinstance(error, (ValueError, RuntimeError)):
        why = f" ({scrub(reason(cause))})" if cause is not None else ""
        kept_note = "; what was sent is kept" if "write" in doing else ""
        return HubError(f"{what}: {scrub(reason(error))}{why}: try again{kept_note}")
    return None


def _is_network_error(error: BaseException | None) -> bool:
    return type(error).__module__.partition(".")[0] in NETWORK_MODULES


def _is_interruption(error: BaseException | None) -> bool:
    """Return whether a connection was made, and was lost or timed out before the end of the answer."""
    return _is_network_error(error) and type(error).__name__ not in NO_CONNECTION_ERRORS


def _status_error(error: Any, what: str, writing: bool) -> HubError:
    """Return our error for an HTTP status."""
    status = getattr(error.response, "status_code", 0)
    advice = {
        401: f"the token is missing or wrong: {LOGIN_ADVICE}",
        403: WRITE_ADVICE if writing else "access is denied, or the repo is disabled: look at its page on the Hub",
        404: "it does not exist",
        413: "the Hub says that it is too large",
    }.get(status, "")
    if status in (409, 412):
        return PublishConflictError(f"{what}: somebody else changed it meanwhile: try again")
    if status >= 500:
        return HubTroubleError(f"{what}: the Hub has trouble (status {status}): try again later")
    if status == 429:
        kept_note = "; what was sent is kept" if writing else ""
        return HubTroubleError(
            f"{what}: the Hub asks to wait (too many requests): try again in some minutes{kept_note}"
        )
    server_message = scrub(str(getattr(error, "server_message", None) or ""))[:200]
    kind = TokenError if status == 401 or (status == 403 and writing) else HubError
    return kind(f"{what}: {advice or f'status {status}'}" + (f" ({server_message})" if server_message else ""))


def scrub(text: str) -> str:
    """Return a text without tokens."""
    return TOKEN_PATTERN.sub(r"\1_***", text)

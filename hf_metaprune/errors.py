"""The errors of this library: whatever it raises on purpose is a `MetaPruneError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MAX_MESSAGE = 2000
"""Most characters of a message; of a longer one the beginning and the end stay."""


class MetaPruneError(Exception):
    """Base of all errors that are raised on purpose.

    The message says what was wrong and what to do. It may quote text of strangers, and it is always one line of at most
    `MAX_MESSAGE` characters, without control characters.

    Example:
        >>> try:
        ...     raise OptionError("ratio=1.5: the ratio must lie between 0 and 1")
        ... except MetaPruneError as error:
        ...     print(error)
        ratio=1.5: the ratio must lie between 0 and 1
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable(_shortened(arg)) if isinstance(arg, str) else arg for arg in args))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 503]}...{text[-500:]}"


def printable(text: str, allowed: str = "") -> str:
    """Replace what no terminal should see: control characters, line breaks and changes of the writing direction.

    Args:
        text: any text.
        allowed: characters that stay nevertheless.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in allowed else "\N{REPLACEMENT CHARACTER}" for c in text)


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, without the number that `OSError` puts before it.

    Args:
        error: any exception, of this library or of another.

    Returns:
        At most 300 characters; the name of the exception's class if it has no message.
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.splitlines() or [type(error).__name__])[0][:300]


@contextmanager
def named_errors(name: object) -> Iterator[None]:
    """Begin the message of a `MetaPruneError` that is raised inside the block with the name of its file or model.

    Args:
        name: the name; None or empty: the message stays. It stays, too, where it has the name.
    """
    try:
        yield
    except MetaPruneError as error:
        if not name or str(name) in str(error):
            raise
        raise type(error)(f"{name}: {error}") from error


class OptionError(MetaPruneError, ValueError):
    """An option does not exist, or has a value that it cannot have."""


class DataError(MetaPruneError):
    """Images or labels cannot be used as a task."""


class ArchitectureError(MetaPruneError):
    """A network has a part that cannot be pruned exactly."""


class FormatError(MetaPruneError):
    """A file of a bank or a model is missing, damaged, or of a newer format version."""


class NewerFormatError(FormatError):
    """A file has a format version that this release of the library cannot read."""


class NotABankError(FormatError):
    """A folder or a repo holds something else than a bank."""


class BaseMismatchError(FormatError):
    """Masks or weights belong to another base model."""


class BankError(MetaPruneError):
    """A bank cannot do what was asked: it is empty, locked, or too small."""


class LockedError(BankError):
    """Another process holds a lock of the bank."""


class StorageError(MetaPruneError, OSError):
    """A folder cannot be read or written: no permission, no space, a file in the way."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()


class WordNetError(MetaPruneError):
    """The WordNet data is missing, or a label has no synset."""


class MissingPackageError(MetaPruneError):
    """An optional package is not installed."""


class HubError(MetaPruneError):
    """The Hub cannot be reached, or refuses what was asked."""


class MissingFileError(HubError, FormatError):
    """A repo lacks a file that it should have."""


class MissingRepoError(HubError):
    """The Hub has no such repo, or does not show it to this user."""


class HubUnreachableError(HubError):
    """The Hub gives no answer: it is down or has trouble, or it may not be asked and the cache lacks something."""


class NotCachedError(HubUnreachableError):
    """The cache lacks a file, and the Hub may not be asked (offline mode, ``local_files_only``)."""


class HubTroubleError(HubUnreachableError):
    """The Hub answers with an error of its own, or asks to wait; for one file or for all."""


class TokenError(HubError):
    """The Hub does not accept the token, or the token lacks a permission."""


class PublishConflictError(HubError):
    """Somebody else changed a repo at the same time."""

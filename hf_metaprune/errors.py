"""The exception tree: everything this library raises on purpose is a `MetaPruneError`."""

from __future__ import annotations


class MetaPruneError(Exception):
    """Base of all errors raised on purpose; the message says what was wrong and what to do.

    It may quote what strangers wrote, and is one line without control characters, wherever it is shown.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable(arg) if isinstance(arg, str) else arg for arg in args))


def printable(text: str) -> str:
    """The text with what no terminal should see replaced: control characters, line breaks, changes of direction."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def reason(error: BaseException) -> str:
    """What went wrong in a few words: the first line, without the number that `OSError` puts before it."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.splitlines() or [type(error).__name__])[0][:300]


class OptionError(MetaPruneError, ValueError):
    """An option has a value it cannot have, or does not exist."""


class DataError(MetaPruneError):
    """Images or labels cannot be used as a task."""


class ArchitectureError(MetaPruneError):
    """A network has a part that cannot be pruned exactly."""


class FormatError(MetaPruneError):
    """A file of a bank or a model is missing, damaged, or of a newer format version."""


class NewerFormatError(FormatError):
    """Files are of a newer format version."""


class NotABankError(FormatError):
    """A folder or a repo is something else than a bank."""


class BaseMismatchError(FormatError):
    """Masks or weights belong to another base model."""


class BankError(MetaPruneError):
    """A bank cannot do what was asked: it is empty, locked, or too small."""


class LockedError(BankError):
    """Another process is writing."""


class StorageError(MetaPruneError, OSError):
    """A folder cannot be read or written: no permission, no space, a file in the way."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()


class WordNetError(MetaPruneError):
    """The WordNet data is missing, or a label has no synset."""


class MissingPackageError(MetaPruneError):
    """An optional package is not installed."""


class HubError(MetaPruneError):
    """The Hub cannot be reached, or does not give or take what was asked."""


class MissingFileError(HubError, FormatError):
    """A repo lacks a file that it should have."""


class HubUnreachableError(HubError):
    """The Hub does not answer, or has trouble; or it may not be asked, and the cache lacks something."""


class NotCachedError(HubUnreachableError):
    """The Hub may not be asked (offline mode, ``local_files_only``), and the cache lacks a file."""


class HubTroubleError(HubUnreachableError):
    """The Hub answers, but has trouble, or asks to wait: with one file, or with everything."""


class TokenError(HubError):
    """The Hub does not take a token, or not for this."""


class PublishConflictError(HubError):
    """Somebody else changed a repo at the same time."""

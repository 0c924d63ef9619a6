"""The exception tree: everything this library raises on purpose is a `MetaPruneError`."""

from __future__ import annotations


class MetaPruneError(Exception):
    """Base of all errors raised on purpose; the message says what was wrong and what to do."""


class OptionError(MetaPruneError, ValueError):
    """An option has a value it cannot have, or does not exist."""


class DataError(MetaPruneError):
    """Images or labels cannot be used as a task."""


class ArchitectureError(MetaPruneError):
    """A network has a part that cannot be pruned exactly."""


class FormatError(MetaPruneError):
    """A file of a bank or a model is missing, damaged, or of a newer format version."""


class BaseMismatchError(FormatError):
    """Masks or weights belong to another base model."""


class BankError(MetaPruneError):
    """A bank cannot do what was asked: it is empty, locked, or too small."""


class LockedError(BankError):
    """Another process is writing."""


class StorageError(MetaPruneError, OSError):
    """A folder cannot be read or written: no permission, no space, a file in the way."""


class WordNetError(MetaPruneError):
    """The WordNet data is missing, or a label has no synset."""

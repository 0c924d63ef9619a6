"""Checks of what a user names, before a command imports what takes seconds."""

from __future__ import annotations

from ..files.layout import INDEX_FILE
from ..files.shipped import bank_folder


def check_bank(bank: str, revision: str | None) -> None:
    """Check that a bank may be where a user says, before what takes seconds is imported.

    Raises:
        FormatError: there is no such folder.
        HubError: the Hub cannot be reached, and the cache does not have the bank.
    """
    from huggingface_hub import constants

    from ..hub.client import hub_answers
    from ..hub.files import HubFiles

    if bank_folder(bank) is None and (constants.HF_HUB_OFFLINE or not hub_answers()):
        HubFiles(bank, INDEX_FILE, revision=revision)

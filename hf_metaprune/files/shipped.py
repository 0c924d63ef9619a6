"""The demo banks and the example task that come with the library, in the installed package or in a clone."""

from __future__ import annotations

from pathlib import Path

from ..errors import FormatError, StorageError
from .names import is_repo_id, user_path

SHIPPED_BANKS = {"demo-bank": "demo_bank", "demo-vit-bank": "demo_vit_bank"}
"""Names that open a bank of the project wherever the library is installed, with the folder of each."""
EXAMPLES = "examples"
EXAMPLE_TASK = "examples/unseen_five"

_PACKAGE = Path(__file__).resolve().parents[1]
_PLACES = (_PACKAGE / "shipped", _PACKAGE.parent / "space")
"""Where shipped folders are: in the installed package, or in a clone."""


def shipped_path(name: str) -> Path:
    """Return the folder of something that comes with the library.

    Args:
        name: a name of `SHIPPED_BANKS`, or a path such as ``examples``.

    Raises:
        StorageError: this installation lacks it.
    """
    folder = SHIPPED_BANKS.get(name, name)
    for place in _PLACES:
        if (place / folder).exists():
            return place / folder
    raise StorageError(2, f"this installation has no {folder}: install hf-metaprune again, or work in a clone")


def bank_folder(bank: str | Path) -> Path | None:
    """Return the folder that a bank's name stands for; None for an id of the Hub that names no folder here.

    Args:
        bank: a path, a Hub id, or a name of `SHIPPED_BANKS`; ``./owner/name`` never is an id of the Hub.

    Raises:
        FormatError: there is no such folder, and the name has not the form of a Hub id.
        OptionError: the name is empty, or too long.
    """
    if isinstance(bank, str) and bank in SHIPPED_BANKS:
        return shipped_path(bank)
    path = user_path(bank)
    if path.exists():
        return path
    if isinstance(bank, str) and is_repo_id(bank):
        return None
    where = "" if path.is_absolute() else f" in {Path.cwd()}"
    raise FormatError(
        f"there is no folder {bank}{where}; a bank on the Hub has an id like owner/name, and the banks that come "
        f"with the library are {' and '.join(SHIPPED_BANKS)}"
    )

"""What comes with the library: demo banks and an example task, in the installed package or in a clone."""

from __future__ import annotations

from pathlib import Path

from ..errors import StorageError

SHIPPED_BANKS = {"demo-bank": "demo_bank", "demo-vit-bank": "demo_vit_bank"}
"""Names that open a bank of the project wherever the library is installed, with the folder of each."""
EXAMPLES = "examples"
EXAMPLE_TASK = "examples/unseen_five"

_PACKAGE = Path(__file__).resolve().parents[1]
_PLACES = (_PACKAGE / "shipped", _PACKAGE.parent / "space")
"""In the installed package; in a clone."""


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

"""The `hf-metaprune` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .exit_codes import INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake ends with one line and exit code 1 (2 for wrong usage, 130 for Ctrl-C)."""
    try:
        from .app import run  # here, so that Ctrl-C is understood while libraries are imported

        run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        sys.stderr.write("stopped; nothing is half written\n")
        raise SystemExit(INTERRUPTED) from None

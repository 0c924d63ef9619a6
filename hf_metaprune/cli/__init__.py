"""The `hf-metaprune` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .exit_codes import INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``hf-metaprune``.

    Args:
        arguments: the words after the command's name; those of this process by default.

    Raises:
        SystemExit: with exit code 1 and one line on standard error after a user's mistake, 2 after wrong usage, and 130
            after Ctrl-C.
    """
    try:
        from .app import run  # inside `try`, so that Ctrl-C during these imports is caught

        run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        sys.stderr.write("stopped; no file is half written\n")
        raise SystemExit(INTERRUPTED) from None

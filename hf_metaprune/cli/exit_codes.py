"""Exit codes of the command."""

INTERRUPTED = 130  # typer's own exit code on Ctrl-C, too

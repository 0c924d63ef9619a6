"""Exit codes of the command."""

INTERRUPTED = 130  # what typer exits with on Ctrl-C, too

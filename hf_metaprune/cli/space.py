"""``hf-metaprune space``: the page of the Space, served on this machine."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from ..errors import MissingPackageError, OptionError
from ..files.shipped import EXAMPLES, shipped_path
from .output import out


def space(
    bank: Annotated[
        str | None, typer.Option(help="Folder of a bank, or its id on the Hub; the demo bank if left out.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Folder of example tasks; those that come with the project if left out.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve on; 0.0.0.0 for all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on.", min=1, max=65535)] = 7860,
) -> None:
    """Serve the page where visitors make models of their own photos; Ctrl-C ends it."""
    where = bank if bank is not None else shipped_path("demo-bank")
    tasks = examples if examples is not None or bank is not None else shipped_path(EXAMPLES)
    serve(where, tasks, host, port)


def serve(
    bank: str | Path, examples: Path | None, host: str, port: int, explore: bool = False, browse: bool = False
) -> None:
    """Serve the pages of a bank until Ctrl-C; `browse` opens the first, or with `explore` that of the bank itself.

    Raises:
        MissingPackageError: Gradio is not installed.
        MetaPruneError: the bank cannot be opened, or the port is taken.
    """
    try:
        from ..app import BANK_PAGE, launch, make_app
    except ImportError as error:
        raise MissingPackageError("the page needs Gradio: pip install 'hf-metaprune[space]'") from error
    try:
        made = launch(make_app(bank, examples), server_name=host, server_port=port, quiet=True)
    except OSError as error:
        raise OptionError(f"port {port} of {host} is taken, or cannot be used: choose another with --port") from error
    address = f"http://{host}:{port}/{BANK_PAGE if explore else ''}"
    out.print(f"serving {address} (Ctrl-C ends it)")
    if browse:
        webbrowser.open(address)
    made.block()

"""``hf-metaprune space``: the page of the Space, served on this machine."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from ..errors import MissingPackageError, OptionError
from ..files.shipped import EXAMPLES, shipped_path
from .checks import check_bank
from .output import out


def space(
    bank: Annotated[
        str | None, typer.Option(help="Folder of a bank, or its id on the Hub; the demo bank by default.")
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="Folder of example tasks; with the demo bank, those that come with the project by default."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve on; 0.0.0.0 for all addresses of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on.", min=1, max=65535)] = 7860,
) -> None:
    """Serve the page where visitors make models from their own photos; Ctrl-C ends it."""
    bank_location = bank if bank is not None else shipped_path("demo-bank")
    examples_folder = examples if examples is not None or bank is not None else shipped_path(EXAMPLES)
    serve(bank_location, examples_folder, host, port)


def serve(
    bank: str | Path, examples: Path | None, host: str, port: int, explore: bool = False, browse: bool = False
) -> None:
    """Serve the pages of a bank until Ctrl-C.

    Args:
        bank: a folder, or an id on the Hub.
        examples: a folder of example tasks.
        host: address to serve on.
        port: port to serve on.
        explore: whether the printed address is that of the bank's own page.
        browse: whether to open the printed address in a browser.

    Raises:
        MissingPackageError: Gradio is not installed.
        MetaPruneError: the bank cannot be opened, or the port cannot be used.
    """
    check_bank(str(bank), None)  # a page that is there has not told a mistake yet
    try:
        from ..app import BANK_PAGE, launch, make_app
    except ImportError as error:
        raise MissingPackageError("the page needs Gradio: pip install 'hf-metaprune[space]'") from error
    try:
        app = launch(make_app(bank, examples), server_name=host, server_port=port, quiet=True)
    except OSError as error:
        raise OptionError(f"port {port} of {host} is in use or not allowed: choose another one with --port") from error
    address = f"http://{host}:{port}/{BANK_PAGE if explore else ''}"
    out.print(f"serving {address} (Ctrl-C ends it)")
    if browse:
        webbrowser.open(address)
    app.block()

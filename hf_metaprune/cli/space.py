"""``hf-metaprune space``: the page of the Space, served on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import MissingPackageError
from .demo import demo_path


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
    try:
        from ..app import launch, make_app
    except ImportError as error:
        raise MissingPackageError("the page needs Gradio: pip install 'hf-metaprune[space]'") from error
    where = bank if bank is not None else demo_path(None, "demo_bank", "--bank")
    tasks = examples if examples is not None or bank is not None else demo_path(None, "examples", "--examples")
    launch(make_app(where, tasks), server_name=host, server_port=port, quiet=False)

"""The page: its sections from photos to the published model, and the bank's own page beside it."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import gradio as gr

from ..drawing.pages import style_sheet
from .bank_page import PATH, BankPage
from .limits import UploadLimits
from .making import MakingSection
from .photos import PhotosSection
from .publishing import RESTORE, TICKET, PublishingSection, refusals
from .results import ResultSection
from .shared import PRIVATE, SharedState, Update
from .style import HEAD, STYLE, THEME
from .visitor import Visitor
from .votes import VoteSection

TITLE = "Your own image classifier, in a minute"
INTRO = (
    f'<div class="prose metaprune"><h1>{TITLE}</h1><p>Show some photos of the things you want told apart. The nearest '
    f'tasks of <a href="{PATH}" target="_blank">a bank of small models</a> vote for what yours needs, and a minute of '
    "training makes it.</p></div>"
)
HOW = (
    "1. Each task of the bank is a copy of one large network, cut down to the units that its own classes needed.\n"
    "2. For your photos the nearest of these tasks are found. The units that they kept get their votes; those with "
    "most votes stay, with what they have learnt, and the others are removed for good.\n"
    "3. A classifier for your classes is solved directly, and about a hundred steps of training on your photos finish "
    "the model: a small fraction of the network, to run on your own device.\n\n"
    "Photos become small pictures in this server's memory, and are forgotten when you close the page."
)
WITHOUT_TICKET = f"""() => {{
  const here = new URL(window.location)
  if (here.searchParams.has('{TICKET}')) {{
    here.searchParams.delete('{TICKET}')
    history.replaceState(null, '', here)
  }}
}}"""
"""It holds once: who loads the page again begins anew."""
QUEUE, THREADS = 100, 100
"""Requests that may wait, and that are answered at a time: those of visitors in the line, and of all others."""


class App:
    """One bank's page; `page` is the Gradio app."""

    def __init__(self, shared: SharedState) -> None:
        self.shared = shared
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as self.page:
            gr.HTML(INTRO)
            with gr.Accordion("How it works", open=False):
                gr.Markdown(HOW)
            self.photos, self.making, self.results = PhotosSection(shared), MakingSection(shared), ResultSection(shared)
            self.votes, self.publishing = VoteSection(), PublishingSection(shared)
            self._wire()
        with self.page.route("The bank", f"/{PATH}"):
            bank = BankPage(shared)
            bank.wire(self.page)

    def _wire(self) -> None:
        photos_changed = self.photos.wire()
        self.making.wire(self.votes, self.results)
        self.results.wire()
        self.publishing.wire(self.results)
        made = [*self.making.parts, *self.votes.parts, *self.results.parts]
        cleared = [*self.photos.parts, *made, self.publishing.name, self.publishing.all]
        size = self.making.size
        self.photos.clear.click(self._clear, [size], cleared, **PRIVATE)
        changed = [*made, self.making.go, self.photos.take_example] if self.shared.examples else [*made, self.making.go]
        quiet: dict[str, Any] = {"show_progress": "hidden"} | PRIVATE
        for event in photos_changed:
            event.then(self._changed, [size], changed, **quiet)
        arriving = self.page.load(self._arrive, [self.publishing.to], [size, *cleared], js=RESTORE, **quiet)
        arriving.then(None, js=WITHOUT_TICKET)
        if self.publishing.signed_in:
            self.page.load(self.publishing.who, None, [self.publishing.login], **quiet)
        self.page.unload(self._leave)

    def block(self) -> None:
        """Open the bank, and serve until Ctrl-C, or until the process is told to end.

        Raises:
            MetaPruneError: the bank cannot be opened.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that files are removed then, too
        try:
            self.shared.opened  # noqa: B018
            self.page.block_thread()
        finally:
            self.page.close(verbose=False)

    def _arrive(self, kept: str, request: gr.Request) -> Update:
        """One who comes back from signing in finds the photos and the model again."""
        session, tickets = request.session_hash or "", (request.query_params.get(TICKET, ""), kept)
        came_back = any(self.shared.visitors.restore(ticket, session) for ticket in tickets if ticket)
        visitor = self.shared.visitor(request)
        shown = self.making.arrived(visitor)
        if not came_back:
            return shown
        shown |= self.photos.arrived(visitor) | self.publishing.arrived(visitor)
        return shown | (self.results.of(visitor) if visitor.result is not None else {})

    def _clear(self, ratio: float, request: gr.Request) -> Update:
        visitor = self.shared.visitor(request)
        self.shared.visitors.forget(visitor)
        return self.photos.emptied(visitor) | self._without_model(visitor, ratio) | {self.publishing.name: ""}

    def _changed(self, ratio: float, request: gr.Request) -> Update:
        """The photos are others: a model of the former ones is none of theirs; and the next step may be another."""
        visitor = self.shared.visitor(request)
        ready = visitor.example is not None or len(visitor.photos.by_class) > 1
        steps = {self.making.go: gr.update(variant="primary" if ready else "secondary")}
        if self.shared.examples:
            steps[self.photos.take_example] = gr.update(variant="secondary" if ready else "primary")
        return steps | (self._without_model(visitor, ratio) if visitor.plan is None else {})

    def _without_model(self, visitor: Visitor, ratio: float) -> Update:
        return self.making.emptied(visitor, ratio) | self.votes.emptied() | self.results.emptied()

    def _leave(self, request: gr.Request) -> None:
        self.shared.visitors.leave(request.session_hash)


def make_app(bank: str | Path, examples: str | Path | None = None, limits: UploadLimits | None = None) -> App:
    """The pages of a bank, which is opened when they are served already.

    Args:
        bank: a folder, or an id on the Hub.
        examples: a folder of example tasks.
        limits: of what a visitor may send.
    """
    _keep_uploads_apart()
    return App(SharedState(bank, examples, limits))


def _keep_uploads_apart() -> None:
    """Let Gradio keep what comes in a folder of this process, which goes when it ends."""
    if "GRADIO_TEMP_DIR" not in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = folder = tempfile.mkdtemp(prefix="hf-metaprune-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def launch(app: App, **options: Any) -> App:
    """Begin to serve; `options` as of Gradio's ``launch``, such as `server_port`. Then call `App.block`."""
    app.page.queue(max_size=QUEUE)
    app.page.launch(
        css=style_sheet() + STYLE,
        head=HEAD,
        theme=THEME,
        max_file_size=app.shared.limits.total_bytes,
        max_threads=THREADS,
        footer_links=[],
        enable_monitoring=False,
        app_kwargs={"openapi_url": None, "docs_url": None, "redoc_url": None, "exception_handlers": refusals()},
        show_error=False,
        ssr_mode=False,
        run_history=False,  # Gradio's would keep what visitors type, a token too, in their browsers
        prevent_thread_lock=True,
        **options,
    )
    return app

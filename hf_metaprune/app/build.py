"""The page: its sections from photos to the published model, and the bank's own page beside it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from ..drawing.pages import style_sheet
from ..files.storage import temporary_folder
from .arrivals import raise_open_files
from .bank_page import PATH, BankPage
from .gate import Gate
from .limits import ArrivalLimits, UploadLimits
from .making import MakingSection
from .photos import PhotosSection
from .publishing import READ_TICKET, TICKET_PARAMETER, PublishingSection, sign_in_error_handlers
from .results import ResultSection
from .shared import PRIVATE, SharedState, Update
from .style import HEAD, STYLE, THEME
from .unread import UnreadAnswers
from .visitor import Visitor
from .votes import VoteSection

TITLE = "Your own image classifier, in a minute"
INTRO = (
    f'<div class="prose metaprune"><h1>{TITLE}</h1><p>Add photos of the things that you want to tell apart. The '
    f'nearest tasks of <a href="{PATH}" target="_blank">a bank of small models</a> vote for the parts of a large '
    "network that your model keeps. About a minute of training finishes the model.</p></div>"
)
HOW_IT_WORKS = (
    "1. Each task of the bank has its own copy of one large network. The copy is cut down to the units that the task's "
    "classes need.\n"
    "2. The page finds the tasks that are nearest to your photos. Each of them votes for the units that its copy "
    "keeps. Your model keeps the units with the most votes and what they have learned. All other units are removed for "
    "good. If the bank has a trunk, one small network of all sizes that the large network has taught, your model is a "
    "part of it instead, unless you ask for a vote.\n"
    "3. A classifier for your classes is computed directly. About a hundred steps of training on your photos finish "
    "the model. It is a small fraction of the network, and runs on your own device.\n\n"
    "The server turns your photos into small pictures in its memory, and deletes them when you close the page."
)
REMOVE_TICKET = f"""() => {{
  const address = new URL(window.location)
  if (address.searchParams.has('{TICKET_PARAMETER}')) {{
    address.searchParams.delete('{TICKET_PARAMETER}')
    history.replaceState(null, '', address)
  }}
}}"""
"""Removes the ticket from the page's address: it is valid once, and a visitor who reloads the page begins anew."""
MAX_QUEUED, MAX_THREADS = 100, 100
"""Most requests that wait in Gradio's queue, and most that are answered at a time."""
MAX_SESSIONS = 1000
"""Most sessions of which Gradio keeps what their pages show."""


class App:
    """The pages of one bank.

    Args:
        shared: the state that all visitors share.
    """

    page: gr.Blocks
    """The Gradio app."""

    def __init__(self, shared: SharedState) -> None:
        self.shared = shared
        self.ended = threading.Event()
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as self.page:
            gr.HTML(INTRO)
            with gr.Accordion("How it works", open=False):
                gr.Markdown(HOW_IT_WORKS)
            self.photos, self.making, self.results = PhotosSection(shared), MakingSection(shared), ResultSection(shared)
            self.votes, self.publishing = VoteSection(), PublishingSection(shared)
            self._wire()
        with self.page.route("The bank", f"/{PATH}"):
            bank_page = BankPage(shared)
            bank_page.wire(self.page)

    def _wire(self) -> None:
        photo_events = self.photos.wire()
        self.making.wire(self.votes, self.results)
        self.results.wire()
        self.publishing.wire(self.results)
        publishing = self.publishing
        model_components = [*self.making.components, *self.votes.components, *self.results.components]
        all_components = [*self.photos.components, *model_components, publishing.name, publishing.accordion]
        ratio = self.making.ratio
        self.photos.delete_all.click(self._delete_all, [ratio], all_components, **PRIVATE)
        buttons = [self.making.make_model, *([self.photos.use_example] if self.shared.examples else [])]
        quiet: dict[str, Any] = {"show_progress": "hidden"} | PRIVATE
        for event in photo_events:
            event.then(self._note_photo_change, [ratio], [*model_components, *buttons], **quiet)
        # The hidden field is only the place to which READ_TICKET gives the ticket.
        arrival = self.page.load(
            self._arrive, [publishing.sign_in_address], [ratio, *all_components], js=READ_TICKET, **quiet
        )
        arrival.then(None, js=REMOVE_TICKET)
        if publishing.has_sign_in:
            self.page.load(publishing.login_label, None, [publishing.login], **quiet)
        self.page.unload(self._leave)

    def block(self) -> None:
        """Open the bank, and serve until Ctrl-C or until the process is terminated.

        Raises:
            MetaPruneError: the bank cannot be opened.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that files are removed
        try:
            self.shared.opened_bank  # noqa: B018
            self.page.block_thread()
        finally:
            self.ended.set()
            self.page.close(verbose=False)

    def _arrive(self, stored_ticket: str, request: gr.Request) -> Update:
        """Return the update for a visitor who opens the page, or comes back from signing in."""
        session, tickets = request.session_hash or "", (request.query_params.get(TICKET_PARAMETER, ""), stored_ticket)
        came_back = any(self.shared.visitors.restore(ticket, session) for ticket in tickets if ticket)
        visitor = self.shared.visitor(request)
        update = self.making.arrival_update(visitor)
        if not came_back:
            return update
        update |= self.photos.arrival_update(visitor) | self.publishing.arrival_update(visitor)
        return update | (self.results.model_update(visitor) if visitor.result is not None else {})

    def _delete_all(self, ratio: float, request: gr.Request) -> Update:
        visitor = self.shared.visitor(request)
        self.shared.visitors.forget(visitor)
        return self.photos.empty_update(visitor) | self._no_model_update(visitor, ratio) | {self.publishing.name: ""}

    def _note_photo_change(self, ratio: float, request: gr.Request) -> Update:
        """Return the update after the photos may have changed.

        It highlights the button to press next, and removes a model of the former photos. If the photos are the same,
        nothing is removed, because the visitor may have pressed the next button meanwhile.
        """
        visitor = self.shared.visitor(request)
        has_changed = visitor.photo_changes != visitor.shown_changes or visitor.was_forgotten
        visitor.shown_changes = visitor.photo_changes
        is_ready = visitor.example is not None or len(visitor.photos.by_class) > 1
        update: Update = {self.making.make_model: gr.update(variant="primary" if is_ready else "secondary")}
        if self.shared.examples:
            update[self.photos.use_example] = gr.update(variant="secondary" if is_ready else "primary")
        return update | (self._no_model_update(visitor, ratio) if has_changed and visitor.plan is None else {})

    def _no_model_update(self, visitor: Visitor, ratio: float) -> Update:
        return self.making.empty_update(visitor, ratio) | self.votes.empty_update() | self.results.empty_update()

    def _leave(self, request: gr.Request) -> None:
        self.shared.visitors.leave(request.session_hash)
        holder = self.page.state_holder  # it would keep what the page has shown for an hour
        holder.session_data.pop(request.session_hash or "", None)
        holder.time_last_used.pop(request.session_hash or "", None)


def make_app(
    bank: str | Path,
    examples: str | Path | None = None,
    limits: UploadLimits | None = None,
    arrival_limits: ArrivalLimits | None = None,
) -> App:
    """Return the pages of a bank; the bank is opened after they are served.

    Args:
        bank: a folder, or an id on the Hub.
        examples: a folder of example tasks; without it the page has no examples.
        limits: limits of what one visitor may send.
        arrival_limits: limits of one request, and of what the server holds.

    Example::

        launch(make_app("org/my-bank", limits=UploadLimits(photos=200)), server_port=7860).block()
    """
    _use_own_upload_folder()
    return App(SharedState(bank, examples, limits, arrival_limits))


def _use_own_upload_folder() -> None:
    """Make Gradio keep uploads in a folder of this process, which is deleted when the process ends."""
    if "GRADIO_TEMP_DIR" not in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = str(temporary_folder("hf-metaprune-"))


def launch(app: App, **options: Any) -> App:
    """Start to serve the pages in the background; `App.block` then waits until the server ends.

    Args:
        app: the pages.
        options: arguments of Gradio's ``launch``, such as ``server_port``.

    Returns:
        The pages.
    """
    raise_open_files()
    app.page.queue(max_size=MAX_QUEUED, api_open=False)  # or events could go past the queue
    app.shared.sweep_regularly(app.ended)
    app.page.launch(
        css=style_sheet() + STYLE,
        head=HEAD,
        theme=THEME,
        max_file_size=app.shared.limits.total_bytes,
        max_threads=MAX_THREADS,
        footer_links=[],
        enable_monitoring=False,
        app_kwargs={
            "openapi_url": None,
            "docs_url": None,
            "redoc_url": None,
            "exception_handlers": sign_in_error_handlers(),
            "middleware": [Middleware(Gate, app.shared.arrivals, UnreadAnswers(app.page))],
        },
        show_error=False,
        state_session_capacity=MAX_SESSIONS,
        ssr_mode=False,
        run_history=False,  # Gradio would store what visitors type, even a token, in their browsers
        prevent_thread_lock=True,
        **options,
    )
    return app

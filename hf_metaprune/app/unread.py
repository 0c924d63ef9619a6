"""Answers that wait until their page reads them: Gradio keeps them for 2,000 sessions, as many of each as there are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .arrivals import RefusedError

if TYPE_CHECKING:
    import gradio as gr

MAX_UNREAD = 100
"""Most messages of a session that may wait when its page sends an event; a page that reads has a few at a time."""
MAX_ALL_UNREAD = 1000
"""Most messages of all sessions that may wait."""
MAX_WHEN_FULL = 20
"""Most messages of a session that stay when there are too many in all, if its page reads or may begin to."""


class UnreadAnswers:
    """The messages that wait for the pages of all sessions; used on the event loop only.

    Args:
        page: the application, whose queue exists when the first event comes.
    """

    def __init__(self, page: gr.Blocks) -> None:
        self._page = page
        self._readers: Counter[str] = Counter()
        """Number of connections that read a session's messages."""

    @property
    def _queues(self) -> Mapping[str, asyncio.Queue[Any]]:
        """The messages of each session."""
        return self._page._queue.pending_messages_per_session

    @contextmanager
    def read_by(self, session: str) -> Iterator[None]:
        """Note that a page reads the messages of a session inside the block."""
        self._readers[session] += 1
        try:
            yield
        finally:
            self._readers[session] -= 1
            if not self._readers[session]:
                del self._readers[session]

    def make_room(self, session: str, active_sessions: Container[str] = ()) -> None:
        """Drop messages that nobody reads if there are too many, before an event of a session brings more.

        Args:
            session: the session.
            active_sessions: sessions that have sent an event just now, whose pages may begin to read.

        Raises:
            RefusedError: too many of the session itself wait.
        """
        queues = self._queues
        if session in queues and queues[session].qsize() > MAX_UNREAD:
            raise RefusedError(429, "the answers to former events were not read")
        if sum(queue.qsize() for queue in queues.values()) > MAX_ALL_UNREAD:
            for name, queue in list(queues.items()):
                may_read = self._readers[name] or name in active_sessions
                if queue.qsize() > (MAX_WHEN_FULL if may_read else 0):
                    while not queue.empty():
                        queue.get_nowait()

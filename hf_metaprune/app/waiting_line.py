"""Whose turn it is: training takes all of the machine, so visitors come one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import MetaPruneError
from .jobs import PULSE, StoppedError


class BusyError(MetaPruneError):
    """Too many visitors are waiting."""


class Ticket:
    """One visitor's place in the line; a visitor who has stopped, or is gone, has none any more."""

    def __init__(self, waiting_line: WaitingLine, stop: threading.Event) -> None:
        self.waiting_line, self.stop = waiting_line, stop

    def waiting(self) -> Iterator[int]:
        """How many are before this one, each second until there is nobody.

        Raises:
            StoppedError: the visitor has stopped, or is gone.
        """
        while ahead := self.waiting_line.before(self):
            yield ahead
            self.waiting_line.pause()
        if self.stop.is_set():
            raise StoppedError


class WaitingLine:
    """A line of visitors, first come, first served."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.line: list[Ticket] = []
        self._changed = threading.Condition()

    @contextmanager
    def ticket(self, stop: threading.Event) -> Iterator[Ticket]:
        """A place at the end of the line, until the block is left; `stop` is set when its visitor does not want it.

        Raises:
            BusyError: the line is full.
        """
        mine = Ticket(self, stop)
        with self._changed:
            if len(self._there()) >= self.most:
                raise BusyError(f"{self.most} visitors are waiting already: please come back in some minutes")
            self.line.append(mine)
        try:
            yield mine
        finally:
            with self._changed:
                self.line.remove(mine)
                self._changed.notify_all()

    def before(self, ticket: Ticket) -> int:
        """How many are before a ticket."""
        with self._changed:
            there = self._there()
            return there.index(ticket) if ticket in there else 0

    def pause(self) -> None:
        """Wait until the line moves, but no longer than a second."""
        with self._changed:
            self._changed.wait(PULSE)

    def _there(self) -> list[Ticket]:
        return [ticket for ticket in self.line if not ticket.stop.is_set()]

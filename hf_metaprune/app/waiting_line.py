"""The waiting line: a training uses the whole machine, so visitors train one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import MetaPruneError
from .jobs import POLL_SECONDS, StoppedError


class BusyError(MetaPruneError):
    """Too many visitors are waiting."""


class Place:
    """One visitor's place in the line; a visitor who has stopped or left is passed over."""

    def __init__(self, waiting_line: WaitingLine, stop: threading.Event) -> None:
        self.waiting_line, self.stop = waiting_line, stop

    def wait_for_turn(self) -> Iterator[int]:
        """Yield how many visitors are ahead, at least once per second, until nobody is.

        Raises:
            StoppedError: the visitor has stopped or left.
        """
        while ahead := self.waiting_line.count_ahead(self):
            yield ahead
            self.waiting_line.wait_for_change()
        if self.stop.is_set():
            raise StoppedError


class WaitingLine:
    """A line of visitors: who comes first is served first."""

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self.places: list[Place] = []
        self._condition = threading.Condition()

    @contextmanager
    def join(self, stop: threading.Event) -> Iterator[Place]:
        """Hold a place at the end of the line until the block ends.

        Args:
            stop: an event that is set when the visitor has stopped or left.

        Yields:
            The place.

        Raises:
            BusyError: the line is full, or the visitor has a place in it already.
        """
        place = Place(self, stop)
        with self._condition:
            if any(active_place.stop is stop for active_place in self._active_places()):
                raise BusyError("you are in the line already")
            if len(self._active_places()) >= self.max_length:
                raise BusyError(f"{self.max_length} visitors are waiting already: please come back in some minutes")
            self.places.append(place)
        try:
            yield place
        finally:
            with self._condition:
                self.places.remove(place)
                self._condition.notify_all()

    def count_ahead(self, place: Place) -> int:
        """Return how many visitors are ahead of a place."""
        with self._condition:
            active = self._active_places()
            return active.index(place) if place in active else 0

    def wait_for_change(self) -> None:
        """Wait until somebody leaves the line, but at most `POLL_SECONDS`."""
        with self._condition:
            self._condition.wait(POLL_SECONDS)

    def _active_places(self) -> list[Place]:
        return [place for place in self.places if not place.stop.is_set()]

"""Long work in a thread of its own, told about as it goes, that can be stopped."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from ..training.loop import TrainingState

T = TypeVar("T")

PULSE = 1.0
"""Seconds after which the watcher is woken if nothing has happened."""


class StoppedError(Exception):
    """The visitor has stopped the work, or is gone."""


@dataclass
class Progress:
    """How far a training is: its steps, the seconds since it began, and accuracies by step."""

    what: str
    step: int = 0
    steps: int = 0
    began: float = field(default_factory=time.monotonic)
    accuracies: dict[int, float] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """By the pace so far; None before there is any."""
        if not self.step:
            return None
        return (time.monotonic() - self.began) / self.step * (self.steps - self.step)


class Watcher:
    """Training callback: notes the progress, and ends the training when it is to stop."""

    def __init__(self, progress: Progress, stop: threading.Event) -> None:
        self.progress, self.stop = progress, stop

    def on_step(self, state: TrainingState) -> None:
        if self.stop.is_set():
            raise StoppedError
        if not self.progress.step:
            self.progress.began = time.monotonic()
        self.progress.step, self.progress.steps = state.step, state.steps

    def on_eval(self, state: TrainingState) -> None:
        if state.accuracy is not None:
            self.progress.accuracies[state.step] = state.accuracy


class Watched(Generic[T]):
    """Runs `work` in a thread; iterating wakes every second until it is done, and then `value` has what it returned.

    If the iteration is given up, `stop` is set and the work waited for.

    Raises:
        StoppedError: `stop` was set. Whatever `work` raises, too.
    """

    value: T

    def __init__(self, work: Callable[[], T], stop: threading.Event) -> None:
        self.work, self.stop = work, stop
        self._done: queue.Queue[BaseException | None] = queue.Queue()

    def _run(self) -> None:
        try:
            self.value = self.work()
        except BaseException as error:
            self._done.put(error)
        else:
            self._done.put(None)

    def __iter__(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            while True:
                try:
                    error = self._done.get(timeout=PULSE)
                except queue.Empty:
                    yield
                    continue
                if error is not None:
                    raise error
                if self.stop.is_set():
                    raise StoppedError
                return
        finally:
            if thread.is_alive():
                self.stop.set()
                thread.join()

"""Background work that reports its progress and can be stopped."""

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

POLL_SECONDS = 1.0
"""Longest time between two updates of the page while work goes on."""


class StoppedError(Exception):
    """The visitor has stopped the work, or has left the page."""


@dataclass
class Progress:
    """The progress of one activity, such as a training."""

    activity: str
    """What is being done, in words for the visitor."""
    step: int = 0
    """Steps that are done."""
    steps: int = 0
    """Steps in all; 0 for an activity without steps."""
    started_at: float = field(default_factory=time.monotonic)
    """Time of the first step, in seconds of `time.monotonic`."""
    accuracies: dict[int, float] = field(default_factory=dict)
    """Accuracies measured so far, in [0, 1], by step."""

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the remaining seconds at the pace so far; None before the first step."""
        if not self.step:
            return None
        return (time.monotonic() - self.started_at) / self.step * (self.steps - self.step)


class ProgressCallback:
    """A training callback that notes the progress, and ends the training when `stop` is set."""

    def __init__(self, progress: Progress, stop: threading.Event) -> None:
        self.progress, self.stop = progress, stop

    def on_step(self, state: TrainingState) -> None:
        """Note a step.

        Raises:
            StoppedError: `stop` is set.
        """
        if self.stop.is_set():
            raise StoppedError
        if not self.progress.step:
            self.progress.started_at = time.monotonic()
        self.progress.step, self.progress.steps = state.step, state.steps

    def on_eval(self, state: TrainingState) -> None:
        """Note an accuracy."""
        if state.accuracy is not None:
            self.progress.accuracies[state.step] = state.accuracy


class BackgroundJob(Generic[T]):
    """A function that runs in a thread of its own.

    Iterating starts the thread, and yields once per `POLL_SECONDS` until the function has returned; then `value` holds
    what it returned. A caller that gives up the iteration sets `stop` and waits for the thread.

    Args:
        work: the function.
        stop: an event that asks the function to end early.

    Raises:
        StoppedError: `stop` was set.
        BaseException: whatever `work` raises.
    """

    value: T
    """What `work` returned."""

    def __init__(self, work: Callable[[], T], stop: threading.Event) -> None:
        self.work, self.stop = work, stop
        self._outcome: queue.Queue[BaseException | None] = queue.Queue()

    def _run(self) -> None:
        try:
            self.value = self.work()
        except BaseException as error:
            self._outcome.put(error)
        else:
            self._outcome.put(None)

    def __iter__(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            while True:
                try:
                    error = self._outcome.get(timeout=POLL_SECONDS)
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

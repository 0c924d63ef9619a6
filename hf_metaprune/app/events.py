"""What all long-running buttons share: disabling the button, error messages, and the waiting line."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Iterator

import gradio as gr

from ..errors import MetaPruneError
from ..hub.client import scrub
from . import views
from .jobs import StoppedError
from .shared import Update
from .waiting_line import WaitingLine

log = logging.getLogger(__name__)

SERVER_ERROR = "Something went wrong on the server; your input is not the cause. Please try again."


def run_steps(steps: Iterator[Update], messages: gr.HTML, before: Update, after: Update) -> Iterator[Update]:
    """Yield `before`, the updates of `steps`, and `after`, which comes after an error, too.

    Args:
        steps: the work, as updates of the page.
        messages: the component that shows an error.
        before: an update that, for example, disables the button.
        after: an update that undoes `before`.
    """
    yield before
    try:
        yield from steps
    except StoppedError as error:
        yield {messages: views.message(str(error) or "Stopped.")}
    except MetaPruneError as error:
        yield {messages: views.message(str(error), "alert")}
    except Exception as error:
        log.error("a visitor's request failed: %s", scrub("".join(traceback.format_exception(error))))
        yield {messages: views.message(SERVER_ERROR, "alert")}
    yield after


def run_in_turn(
    waiting_line: WaitingLine, stop: threading.Event, messages: gr.HTML, steps: Iterator[Update]
) -> Iterator[Update]:
    """Yield how many visitors are ahead until it is this visitor's turn, then the updates of `steps`.

    Args:
        waiting_line: the line to wait in.
        stop: an event that is set when the visitor has stopped or left.
        messages: the component that shows how many visitors are ahead.
        steps: the work, as updates of the page.

    Raises:
        BusyError: the line is full.
        StoppedError: the visitor has stopped or left.
    """
    with waiting_line.join(stop) as place:
        for ahead in place.wait_for_turn():
            yield {messages: views.waiting(ahead)}
        yield from steps


def set_enabled(button: gr.Button, enabled: bool) -> Update:
    """Return the update that enables or disables a button."""
    return {button: gr.update(interactive=enabled)}


def move_focus(source: str, target: str) -> str:
    """Return JavaScript that moves the keyboard's focus from a button that is hidden or disabled to another one.

    Without it, a visitor who uses the keyboard would begin at the top of the page again.

    Args:
        source: the id of the button that is about to be hidden or disabled.
        target: the id of the button that takes its place.
    """
    return f"""() => {{
  const attempt = (attemptsLeft) => {{
    const [source, target] = ['#{source}', '#{target}'].map((id) => document.querySelector(id))
    if (![document.body, source].includes(document.activeElement)) return
    const isReady = target?.offsetParent && !target.disabled
    if (isReady && (!source?.offsetParent || source.disabled)) target.focus({{preventScroll: true}})
    else if (attemptsLeft) setTimeout(attempt, 100, attemptsLeft - 1)
  }}
  attempt(100)
}}"""

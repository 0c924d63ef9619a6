"""What every long-running button shares: it rests while it works, and whatever goes wrong is said on the page."""

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

SORRY = "Something went wrong here, not with what you gave. Please try again."


def run_steps(steps: Iterator[Update], messages: gr.HTML, before: Update, after: Update) -> Iterator[Update]:
    """`before`, then what `steps` say, then `after`, come what may; trouble is said in `messages`."""
    yield before
    try:
        yield from steps
    except StoppedError as error:
        yield {messages: views.message(str(error) or "Stopped.")}
    except MetaPruneError as error:
        yield {messages: views.message(str(error), "alert")}
    except Exception as error:
        log.error("a visitor's wish failed: %s", scrub("".join(traceback.format_exception(error))))
        yield {messages: views.message(SORRY, "alert")}
    yield after


def in_turn(
    waiting_line: WaitingLine, stop: threading.Event, messages: gr.HTML, steps: Iterator[Update]
) -> Iterator[Update]:
    """What `steps` say, once it is this visitor's turn; until then, in `messages`, how many are before.

    Raises:
        BusyError: the line is full.
        StoppedError: the visitor has stopped, or is gone.
    """
    with waiting_line.ticket(stop) as ticket:
        for before in ticket.waiting():
            yield {messages: views.waiting(before)}
        yield from steps


def resting(button: gr.Button, rests: bool = True) -> Update:
    """The button, so that it cannot be pressed; or can again."""
    return {button: gr.update(interactive=not rests)}


def focus(gone: str, instead: str) -> str:
    """JavaScript that leads who came by keyboard from a button that goes, or rests, to the one in its place.

    Args:
        gone, instead: their ids.
    """
    return f"""() => {{
  const look = (times) => {{
    const [gone, instead] = ['#{gone}', '#{instead}'].map((id) => document.querySelector(id))
    if (![document.body, gone].includes(document.activeElement)) return
    const there = instead?.offsetParent && !instead.disabled
    if (there && (!gone?.offsetParent || gone.disabled)) instead.focus({{preventScroll: true}})
    else if (times) setTimeout(look, 100, times - 1)
  }}
  look(100)
}}"""

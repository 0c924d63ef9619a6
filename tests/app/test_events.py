"""What all long-running buttons share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest

from hf_metaprune.app.build import make_app
from hf_metaprune.app.events import SERVER_ERROR, run_steps
from hf_metaprune.app.jobs import StoppedError
from hf_metaprune.app.shared import Update
from hf_metaprune.errors import DataError
from tests import forked


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (None, None),
        (DataError("a class needs two <b>photos</b>"), "a class needs two &lt;b&gt;photos&lt;/b&gt;"),
        (StoppedError(), "Stopped."),
        (RuntimeError("the token hf_abcdefghijklmnopqrstuvwxyz012345 is odd"), SERVER_ERROR),
    ],
)
def test_a_button_can_be_pressed_again_whatever_happens(
    error: Exception | None, message: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    messages = gr.HTML()

    def steps() -> Iterator[Update]:
        yield {"a": 1}
        if error is not None:
            raise error

    with caplog.at_level(logging.DEBUG):
        updates = list(run_steps(steps(), messages, {"button": "off"}, {"button": "on"}))
    assert updates[:2] == [{"button": "off"}, {"a": 1}]
    assert updates[-1] == {"button": "on"}
    assert len(updates) == 3 + (message is not None)
    assert message is None or message in updates[2][messages]
    assert ("RuntimeError" in caplog.text) == isinstance(error, RuntimeError)
    assert "hf_abc" not in caplog.text


def test_a_visitor_who_leaves_ends_the_work() -> None:
    cleanups: list[bool] = []

    def steps() -> Iterator[Update]:
        try:
            yield {}
            yield {}
        finally:
            cleanups.append(True)

    updates = run_steps(steps(), gr.HTML(), {}, {})
    assert next(updates) == next(updates) == {}
    updates.close()  # type: ignore[attr-defined]
    assert cleanups == [True]


def remove_after_changes_only(bank_folder: Path) -> None:
    app, request = make_app(bank_folder), gr.Request(session_hash="a")
    visitor = app.shared.visitor(request)
    assert app.making.messages not in app._note_photo_change(0.7, request)
    visitor.note_photo_change()
    assert app._note_photo_change(0.7, request)[app.making.messages] == ""
    assert app.making.messages not in app._note_photo_change(0.7, request)


def test_after_a_mistake_nothing_is_removed_that_the_next_press_wrote(bank_folder: Path) -> None:
    """This event comes a moment after the one before; the visitor may have pressed a button that answers meanwhile."""
    forked.run(remove_after_changes_only, bank_folder)  # Gradio leaves an event loop behind

"""Who is forgotten when there are too many visitors, and what of a visitor stays."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from hf_metaprune.app.build import make_app
from hf_metaprune.app.limits import UploadLimits
from hf_metaprune.app.visitor import Visitors
from tests import forked


def make_visitors(**options: Any) -> Visitors:
    return Visitors(lambda: SimpleNamespace(by_class={}, unlabeled=[]), **options)  # type: ignore[arg-type, return-value]


def test_those_who_have_nothing_are_forgotten_first() -> None:
    visitors = make_visitors(max_visitors=3)
    with_model = visitors.get("model")
    with_model.result = object()  # type: ignore[assignment]
    visitors.get("photos").photos.by_class["ant"] = []  # type: ignore[assignment]
    for i in range(20):
        visitors.get(f"flood {i}")
    assert list(visitors.sessions) == ["model", "photos", "flood 19"]
    assert visitors.get("model") is with_model
    for name in ("a", "b"):
        visitors.get(name).plan = object()  # type: ignore[assignment]
    assert list(visitors.sessions) == ["model", "a", "b"]  # all have something: the longest idle one
    assert visitors.get("photos").was_forgotten


def test_who_is_idle_is_forgotten_though_nobody_comes() -> None:
    visitors = make_visitors(idle_seconds=0.0)
    visitor = visitors.get("a")
    visitor.result = object()  # type: ignore[assignment]
    visitors.forget_idle(but="a")
    assert visitors.get("a") is visitor
    visitors.forget_idle()
    assert visitor.result is None
    assert not visitors.sessions
    assert visitors.get("a").was_forgotten


def test_few_wait_for_those_who_sign_in() -> None:
    visitors = make_visitors(max_visitors=3)
    tickets = []
    for name in "abcde":
        visitor = visitors.get(name)
        visitor.result = object()  # type: ignore[assignment]
        tickets.append(visitors.issue_ticket(visitor))
        visitors.leave(name)
    assert [visitors.restore(ticket, f"back {ticket}") for ticket in tickets] == [False, False, True, True, True]


def test_an_upload_that_is_a_folder_by_now_hinders_nobody(tmp_path: Path) -> None:
    visitors, folder = make_visitors(), tmp_path / "abc" / "x.png"
    folder.mkdir(parents=True)
    visitor = visitors.get("a")
    visitor.uploads.add(str(folder))
    visitors.delete_uploads(visitor, [str(folder)])
    assert folder.is_dir()
    assert not visitor.uploads


def add_too_much(bank_folder: Path, folder: Path) -> None:
    app, request = make_app(bank_folder, limits=UploadLimits(photos=4, total_bytes=350)), gr.Request(session_hash="a")
    files = [folder / str(i) / f"{i}.png" for i in range(6)]
    for file in files:
        file.parent.mkdir()
        file.write_bytes(bytes(100))
    update = app.photos._add("", [str(file) for file in files], None, None, request)
    assert "needs a name" in str(update[app.photos.messages])
    assert [file.exists() for file in files] == [True] * 3 + [False] * 3
    assert [file.parent.exists() for file in files] == [True] * 3 + [False] * 3
    update = app.photos._add("ant", [str(file) for file in files[:3]], None, None, request)
    assert not any(file.exists() for file in files)
    holder = app.page.state_holder
    holder["a"]
    app._leave(request)
    assert "a" not in holder


@pytest.mark.slow
def test_no_call_leaves_more_than_the_limits(bank_folder: Path, tmp_path: Path) -> None:
    forked.run(add_too_much, bank_folder, tmp_path)  # Gradio leaves an event loop behind

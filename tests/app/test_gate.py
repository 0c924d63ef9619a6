"""The server answers only what its pages use: routes, sizes, files that were sent to it, a few events per second."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hf_metaprune.app.arrivals import RefusedError
from hf_metaprune.app.gate import FILES_PER_EVENT, MAX_BODY_BYTES, MAX_EVENTS
from hf_metaprune.app.limits import UploadLimits
from hf_metaprune.app.unread import MAX_ALL_UNREAD, UnreadAnswers

from .conftest import Served

pytestmark = pytest.mark.slow
ROUTES = (
    *(
        "process_recording",
        "component_server",
        "call/predict",
        "api/predict",
        "vibe-edit",
        "stream/a",
        "stream/a/close",
    ),
    *("run-history/connect", "profiling/clear", "undo-vibe-edit/", "vibe-code", "queue-join", ""),
)


def answer(served: Served, route: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"{served.url}gradio_api/{route}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read(10_000).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


def send_event(served: Served, data: list[Any], session: object) -> tuple[int, str]:
    event = {"data": data, "fn_index": 0, "session_hash": session}
    return answer(served, "queue/join", json.dumps(event).encode(), **{"Content-Type": "application/json"})


@pytest.mark.parametrize("route", ROUTES)
def test_what_no_page_uses_takes_nothing(served: Served, route: str) -> None:
    assert answer(served, route, b"x" * 100)[0] == 404


@pytest.mark.parametrize(
    "route",
    [
        *("deep_link?session_hash=a", "info", "openapi.json", "runs", "dev/reload", "stream/a/b/c/playlist.m3u8"),
        *(
            "file=http://127.0.0.1/a.png",
            "file=HTTPS://a.b/c",
            "file=data:text/html,x",
            "proxy=http://a.b/c",
            "call/a/b",
        ),
        *(
            "file=http%3A//127.0.0.1/a.png",
            "file/http://a.b/c",
            "file=http://a.b/gradio_api/c",
            "%64eep_link?session_hash=a",
        ),
    ],
)
def test_what_no_page_uses_gives_nothing(served: Served, route: str) -> None:
    assert answer(served, route) == (404, "there is no such page")


def test_an_event_is_small(served: Served) -> None:
    status, text = send_event(served, ["x" * MAX_BODY_BYTES], "large")
    assert (status, text) == (413, "at most 3 MB can be sent at a time")
    assert answer(served, "run/predict", b"not json")[0] == 400
    assert answer(served, "queue/join", b"[" * 100_000)[0] == 400


@pytest.mark.parametrize("value", [{}, [], {"path": None}, {"a": 1}])
def test_an_event_has_few_values_that_are_no_files(served: Served, value: object) -> None:
    """Gradio writes some lines about each that is wrong: 1 MB of them took 3 seconds and 80 MB of log."""
    assert send_event(served, ["x", [value] * 101], "many_values") == (400, "an event has too many values")
    assert send_event(served, ["x", [{"path": "elsewhere", "meta": value}] * 200], "many_values")[1] != (
        "an event has too many values"
    )


@pytest.mark.parametrize("text", ["x" * 10_001, ["x" * 6000] * 2, {"x" * 10_001: 1}])
def test_an_event_has_little_text(served: Served, text: object) -> None:
    """Gradio repeats it in its errors, and keeps those until the page reads them."""
    assert send_event(served, [text], "text") == (400, "an event has too much text")


@pytest.mark.parametrize(
    "change", [{"orig_name": "x" * 3000}, {"url": ["x"]}, {"meta": {"a": "x" * 3000}}, {"x" * 3000: 1}]
)
def test_a_file_of_an_event_is_one_of_gradio(served: Served, change: dict[str, object]) -> None:
    file = {"path": os.fspath(next(served.files.glob("hf-metaprune-*")) / "abc" / "deleted.png"), "orig_name": "a.png"}
    assert send_event(served, [file], "file")[0] != 400
    assert send_event(served, [file | change], "file") == (400, "an event has a file that is none")


@pytest.mark.parametrize("name", ["x" * 101, "", "a b", "q\ud800", "ä", 5, None, ["a"]])
def test_the_name_of_a_session_is_a_short_word(served: Served, name: object) -> None:
    """Names are kept of visitors who have left, too; half of a surrogate pair made Gradio keep all later events."""
    assert send_event(served, [], name) == (400, "this is no session")
    assert send_event(served, ["q\ud800"], "a") == (400, "an event has text that is none")
    assert send_event(served, ["\U0001f600"], "x" * 100)[0] != 400


def test_who_reads_no_answers_gets_few(served: Served) -> None:
    """Gradio keeps them until they are read."""
    end, refusal = time.monotonic() + 60, ""
    while refusal != "the answers to former events were not read" and time.monotonic() < end:
        status, refusal = send_event(served, [], "unread")
        assert status == (429 if "many events" in refusal or "not read" in refusal else 200)
    assert "not read" in refusal
    assert send_event(served, [], "another")[0] == 200


def test_answers_that_nobody_reads_make_room() -> None:
    queues = {name: asyncio.Queue() for name in ("gone", "slow", "reading", "joined")}
    unread = UnreadAnswers(SimpleNamespace(_queue=SimpleNamespace(pending_messages_per_session=queues)))
    for name, count in (("gone", 3), ("slow", MAX_ALL_UNREAD), ("reading", 2), ("joined", 4)):
        for number in range(count):
            queues[name].put_nowait(number)
    with unread.read_by("slow"), unread.read_by("reading"):
        with pytest.raises(RefusedError, match="not read"):
            unread.make_room("slow")
        unread.make_room("new", {"joined", "slow"})
    assert {name: queue.qsize() for name, queue in queues.items()} == {"gone": 0, "slow": 0, "reading": 2, "joined": 4}


@pytest.mark.parametrize("route", ["upload", "upload_progress", "queue/data"])
def test_a_query_is_short(served: Served, route: str) -> None:
    body = b"x" if route == "upload" else None
    assert answer(served, f"{route}?upload_id={'x' * 300}", body) == (400, "the address is too long")


def test_no_event_goes_past_the_queue(served: Served) -> None:
    """Gradio answers those at once that have no queue, and else says that there is one."""
    answers = []
    for number in range(12):  # one visitor may send 60 in ten seconds
        event = {"fn_index": number, "data": [], "session_hash": f"past_the_queue_{number}"}
        answers.append(
            answer(served, "run/predict", json.dumps(event).encode(), **{"Content-Type": "application/json"})
        )
    refused = [text for status, text in answers if status == 404]
    assert len(refused) >= 6, answers
    assert not [answer for answer in answers if answer[0] == 200 and "add" in answer[1]]


def test_an_event_names_only_files_that_were_sent_here(served: Served, tmp_path: Path) -> None:
    folder = next(served.files.glob("hf-metaprune-*"))
    sent, link, elsewhere = folder / "abc" / "a.png", folder / "abc" / "link.png", tmp_path / "secret.png"
    sent.parent.mkdir(parents=True, exist_ok=True)
    for file in (sent, elsewhere):
        file.write_bytes(b"x")
    link.symlink_to(elsewhere)
    refused = (
        "http://127.0.0.1/a.png",
        str(elsewhere),
        str(sent.parent),
        str(link),
        "a.png",
        f"{folder}/../x",
        f"{folder}/abc/../abc/a.png",  # one file has one spelling
        f"{folder}/abc//a.png",
        "",
        f"{folder}/\0",
        f"{folder}/\ud800",
    )
    for path in refused:
        for data in ([{"path": path}], [[{"a": {"path": path, "meta": {"_type": "gradio.FileData"}}}]]):
            assert send_event(served, data, "files") == (400, "an event names a file that was not sent here"), path
    for path in (sent, folder / "abc" / "deleted.png"):
        assert send_event(served, [{"path": os.fspath(path)}], "files")[0] != 400


def test_one_session_cannot_flood_the_queue(served: Served) -> None:
    answers = [send_event(served, [], "flood") for _ in range(MAX_EVENTS + 5)]
    assert answers[-5:] == [(429, "too many events: wait some seconds")] * 5
    assert not any("many events" in text for _, text in answers[:-5])
    assert send_event(served, [], "other")[0] != 429


def test_an_event_that_names_many_files_counts_as_many_events(served: Served) -> None:
    folder = next(served.files.glob("hf-metaprune-*"))
    file = {"path": os.fspath(folder / "abc" / "deleted.png")}
    third = MAX_EVENTS // 3 * FILES_PER_EVENT
    assert [send_event(served, [[file] * third], "many")[0] for _ in range(3)] == [200, 200, 429]


def test_an_event_may_name_as_many_photos_as_a_visitor_may_send(served: Served) -> None:
    folder, name = next(served.files.glob("hf-metaprune-*")), "é" * 125 + ".png"
    path = f"{folder / ('a' * 64) / name}"
    url = f"{served.url}gradio_api/file={urllib.parse.quote(path)}"
    file = {"path": path, "url": url, "orig_name": name, "size": 1, "mime_type": "image/png", "meta": {"_type": "x"}}
    assert send_event(served, [[file] * UploadLimits.photos], "photos")[0] == 200


def form(*parts: bytes) -> tuple[bytes, dict[str, str]]:
    body = b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + b"--x--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=x"}


PNG_PART = b'Content-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc'


@pytest.mark.parametrize(
    "parts",
    [
        (b'Content-Disposition: form-data; name="a"\r\n\r\n' + b"x" * 1_000_000,),
        (PNG_PART, b'Content-Disposition: form-data; name="a"\r\n\r\nx'),
        (b"X: y\r\n\r\nx",),
        *((PNG_PART, PNG_PART.replace(b"a.png", name)) for name in (b"..", b".", b"")),
        (PNG_PART.replace(b"a.png", b"a" * 20_000),),
        (b"X: y\r\n" * 50 + PNG_PART,),
    ],
)
def test_an_upload_has_files_only(served: Served, parts: tuple[bytes, ...]) -> None:
    """Gradio keeps other fields in memory, several times."""
    body, headers = form(*parts)
    status, text = answer(served, "upload", body, **headers)
    assert status == 400, text
    assert any(words in text for words in ("files only", "headers of a file", "malformed"))


def test_an_upload_is_a_form(served: Served) -> None:
    body, headers = form(PNG_PART)
    assert answer(served, "upload", body, **headers)[0] == 200
    assert answer(served, "upload", body, **{"Content-Type": "text/plain"})[0] == 400
    assert answer(served, "upload", b"--y" + body, **headers)[0] == 400
    assert answer(served, "upload", body, **{"Content-Type": f"multipart/form-data; boundary={'x' * 5000}"})[0] == 400

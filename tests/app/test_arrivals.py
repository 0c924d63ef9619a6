"""Gradio's upload route: limits per request and of the server, and what nobody uses is deleted."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr
import pytest

from hf_metaprune.app.arrivals import Arrivals, RefusedError, delete_upload
from hf_metaprune.app.build import App, launch, make_app
from hf_metaprune.app.limits import ArrivalLimits, UploadLimits
from hf_metaprune.app.photos import MAX_UPLOADS
from hf_metaprune.app.visitor import Visitors
from tests import forked

from .conftest import wait_until

LIMITS = ArrivalLimits(request_bytes=1000, server_bytes=3000, requests=2)


@pytest.fixture
def arrivals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arrivals:
    monkeypatch.setattr("hf_metaprune.app.arrivals.COUNTED_SECONDS", -1.0)  # what a test writes counts at once
    return Arrivals(tmp_path, LIMITS, is_used=lambda path: path.endswith("used.png"))


def test_a_request_is_limited_before_it_is_read(arrivals: Arrivals, tmp_path: Path) -> None:
    for size, status in ((None, 411), (1001, 413)):
        with pytest.raises(RefusedError) as refusal, arrivals.room_for(size):
            pass
        assert refusal.value.status == status
    with arrivals.room_for(1000), arrivals.room_for(900):
        with pytest.raises(RefusedError) as refusal, arrivals.room_for(10):
            pass
        assert refusal.value.status == 503  # two at a time
    (tmp_path / "held").write_bytes(bytes(2500))
    with pytest.raises(RefusedError) as refusal, arrivals.room_for(501):
        pass
    assert refusal.value.status == 503
    with arrivals.room_for(500):
        pass


def test_who_says_much_and_sends_little_takes_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_metaprune.app.arrivals.CHECKED_BYTES", 100)
    arrivals = Arrivals(tmp_path, ArrivalLimits(request_bytes=1000, server_bytes=1000), is_used=lambda path: True)
    with arrivals.room_for(1000) as slow:
        slow.grow(50)
        with arrivals.room_for(900) as fast:
            fast.grow(900)
            slow.grow(49)
            with pytest.raises(RefusedError) as refusal:
                slow.grow(100)
            assert refusal.value.status == 503
    with arrivals.room_for(1000):
        pass


def test_the_server_holds_a_bounded_number_of_files(tmp_path: Path) -> None:
    """Small files cost little to send, and as much as others to look after."""
    arrivals = Arrivals(tmp_path, ArrivalLimits(files=3), is_used=lambda path: True)
    with arrivals.room_for(10):
        pass
    arrivals.note(["a", "b", "c"])  # which have arrived since the last count
    with arrivals.room_for(10):  # there are none, which a new count finds
        pass
    for name in "abc":
        (tmp_path / name).touch()
    arrivals.sweep()
    with pytest.raises(RefusedError) as refusal, arrivals.room_for(10):
        pass
    assert refusal.value.status == 503


def test_what_has_arrived_counts_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrivals = Arrivals(tmp_path, ArrivalLimits(server_bytes=1000), is_used=lambda path: True)
    monkeypatch.setattr("hf_metaprune.app.arrivals.COUNTED_SECONDS", 1000.0)
    with arrivals.room_for(600) as arrival:
        arrival.grow(600)
    (tmp_path / "a").write_bytes(bytes(600))
    with pytest.raises(RefusedError), arrivals.room_for(600):
        pass


def test_a_file_that_goes_while_files_are_counted_is_no_error(
    arrivals: Arrivals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradio moves files that have arrived."""
    moved, cut = tmp_path / ("ab" * 32) / "a.png", tmp_path / "tmp1"
    moved.parent.mkdir()
    is_file = Path.is_file

    def is_file_and_unlink(path: Path) -> bool:
        answer = is_file(path)
        if path in (moved, cut):
            path.unlink(missing_ok=True)
        return answer

    monkeypatch.setattr(Path, "is_file", is_file_and_unlink)
    for use in (arrivals.sweep, lambda: arrivals.room_for(10).__enter__()):
        moved.touch()
        cut.touch()
        use()
        assert not moved.exists()


def test_a_folder_that_goes_while_files_are_counted_is_no_error(arrivals: Arrivals, tmp_path: Path) -> None:
    """Other visitors' files are deleted with their folders."""
    files = [tmp_path / (digit * 64) / "a.png" for digit in "0123456789"]
    for file in files:
        file.parent.mkdir()
        file.touch()
    found = arrivals._files()
    first = next(found)
    for file in files:
        if file != first:
            delete_upload(str(file))
    assert list(found) == []


def test_a_file_that_several_have_sent_stays_until_all_have_used_it(arrivals: Arrivals, tmp_path: Path) -> None:
    """Gradio stores equal files of equal names once; the second visitor may not even be known yet."""
    visitors = Visitors(lambda: None, delete=arrivals.delete)  # type: ignore[arg-type, return-value]
    file = tmp_path / ("ab" * 32) / "same.png"
    file.parent.mkdir()
    file.touch()
    for _ in range(2):
        arrivals.note([str(file)])
    for session in "ab":
        assert file.exists()
        visitor = visitors.get(session)
        visitor.uploads.add(str(file))
        visitors.delete_uploads(visitor, [str(file)])
    assert not file.exists()


def test_who_gives_up_a_file_twice_gives_up_no_one_elses(arrivals: Arrivals, tmp_path: Path) -> None:
    """As by leaving while a zip is read, or by a second press of the same button; the other one still waits."""
    visitors = Visitors(lambda: None, delete=arrivals.delete, arrived_at=arrivals.arrived_at)  # type: ignore[arg-type, return-value]
    one, file = visitors.get("1"), tmp_path / ("ab" * 32) / "same.zip"
    file.parent.mkdir()
    file.touch()
    for _ in range(2):
        arrivals.note([str(file)])
    for _ in range(3):
        visitors.note_uploads(one, [str(file)])
        visitors.delete_uploads(one, [str(file)])
    assert file.exists()
    arrivals.note([str(file)])  # sent again
    visitors.note_uploads(one, [str(file)])
    assert one.uploads == {str(file)}
    visitors.delete_uploads(one, [str(file)])
    visitors.note_uploads(visitors.get("2"), [str(file)])
    visitors.delete_uploads(visitors.get("2"), [str(file)])
    assert not file.exists()


def test_files_of_requests_under_way_are_counted(arrivals: Arrivals, tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path, ArrivalLimits(files=60), is_used=lambda path: True)
    with arrivals.room_for(10) as one, arrivals.room_for(10) as two:
        for arrival in (one, two):
            for i in range(25):
                arrival.begin_file()
                (tmp_path / f"tmp{arrival.n_bytes}{i}").touch()  # which is not counted twice
        with pytest.raises(RefusedError) as refusal:
            for _ in range(100):
                one.begin_file()
        assert refusal.value.status == 503
    arrivals = Arrivals(tmp_path / "new", ArrivalLimits(), is_used=lambda path: True)
    with arrivals.room_for(10) as one, pytest.raises(RefusedError) as refusal:
        for _ in range(1001):
            one.begin_file()
    assert refusal.value.status == 413


def test_no_file_is_deleted_where_another_one_may_just_be_put(arrivals: Arrivals, tmp_path: Path) -> None:
    file = tmp_path / ("ab" * 32) / "same.png"
    file.parent.mkdir()
    file.touch()
    arrivals.note([str(file)])
    with arrivals.room_for(10) as arrival:
        arrival.complete()  # Gradio moves its file to the same place, and has not said so yet
        arrivals.delete(str(file))
        assert file.exists()
        arrivals.note([str(file)])
    assert file.exists()
    arrivals.delete(str(file))
    assert not file.exists()


def test_what_nobody_uses_is_deleted_in_time(
    arrivals: Arrivals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / "abc" / name for name in ("used.png", "idle.png", "new.png")]
    files[0].parent.mkdir()
    for file in files:
        file.touch()
    cut, own = tmp_path / "tmp123", tmp_path / "of_others"
    for file in (cut, own):
        file.touch()
    arrivals.note([str(file) for file in files[:2]])
    arrivals.sweep()
    assert all(file.exists() for file in (*files, cut, own))
    later, monotonic = time.time() + LIMITS.unused_seconds + 1, time.monotonic() + LIMITS.unused_seconds + 1
    monkeypatch.setattr(time, "time", lambda: later)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic)
    arrivals.note([str(files[2])])
    arrivals.sweep()
    assert [file.exists() for file in (*files, cut, own)] == [True, False, True, False, True]


def test_files_of_a_refused_request_are_deleted_in_time(
    arrivals: Arrivals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which Gradio has moved to their places before it refused another file, and which were never noted."""
    moved, used, own = (
        tmp_path / ("ab" * 32) / "a.png",
        tmp_path / ("cd" * 32) / "used.png",
        tmp_path / "metaprune-1" / "a",
    )
    for file in (moved, used, own):
        file.parent.mkdir()
        file.touch()
    arrivals.sweep()
    assert moved.exists()
    later = time.time() + LIMITS.unused_seconds + 1
    monkeypatch.setattr(time, "time", lambda: later)
    arrivals.sweep()
    assert [file.exists() for file in (moved, used, own)] == [False, True, True]


def test_a_file_that_a_visitor_uses_who_is_signing_in_is_kept(tmp_path: Path) -> None:
    visitors = Visitors(lambda: None)  # type: ignore[arg-type, return-value]
    one, two, file = visitors.get("1"), visitors.get("2"), tmp_path / "same.png"
    file.touch()
    for visitor in (one, two):
        visitor.uploads.add(str(file))
    visitors.issue_ticket(one)
    visitors.leave("1")
    visitors.delete_uploads(two, [str(file)])
    assert file.exists()
    assert visitors.are_using(str(file))


def choose_too_much(bank_folder: Path, folder: Path) -> None:
    files = [folder / f"{i}.png" for i in range(6)]
    for file in files:
        file.write_bytes(bytes(100))
    app = make_app(bank_folder, limits=UploadLimits(photos=4, total_bytes=350))
    request = gr.Request(session_hash="a")
    app.photos._track_pending_photos([str(file) for file in files[:2]], None, None, request)
    assert [file.exists() for file in files] == [True] * 6
    app.photos._track_pending_photos([str(file) for file in files[1:]], None, None, request)
    assert [file.exists() for file in files] == [False, True, True, True, False, False]
    assert app.shared.visitor(request).uploads == {str(file) for file in files[1:4]}


@pytest.mark.slow
def test_what_one_visitor_has_chosen_beyond_the_limits_is_deleted(bank_folder: Path, tmp_path: Path) -> None:
    forked.run(choose_too_much, bank_folder, tmp_path)  # Gradio leaves an event loop behind


@pytest.fixture
def app(bank_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[App]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    limits = ArrivalLimits(request_bytes=20_000, server_bytes=60_000, requests=25, silent_seconds=3.0)
    app = launch(make_app(bank_folder, arrival_limits=limits), quiet=True)
    yield app
    app.page.close(verbose=False)
    gc.collect()  # Gradio leaves an event loop, whose end would be a warning of a later test


def send(app: App, n_bytes: int, name: str) -> tuple[int, str]:
    boundary = "xyz"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    body = head + name.encode() + bytes(n_bytes - len(name)) + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(f"{app.page.local_url}gradio_api/upload", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def send_raw(app: App, *headers: str, route: str = "upload") -> bytes:
    """Send the head of a request and no body; return the answer, once the server ends the connection."""
    address = urllib.parse.urlsplit(app.page.local_url)
    lines = [f"POST {address.path}gradio_api/{route} HTTP/1.1", f"Host: {address.netloc}", *headers]
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        return b"".join(iter(lambda: connection.recv(4096), b""))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Gradio's, in this process for once
def test_the_server_keeps_its_limits(app: App, tmp_path: Path, run_at_once: Callable) -> None:
    assert b" 413 " in send_raw(app, "Content-Length: 30000").splitlines()[0]
    for header in ("Transfer-Encoding: chunked", "Content-Length: 10\r\nTransfer-Encoding: chunked"):
        assert send_raw(app, header).split()[1] in (b"400", b"411"), header
    for size in ("-1", "x", "1e3", "9" * 5000):
        assert send_raw(app, f"Content-Length: {size}").split()[1] in (b"400", b"411", b"413", b"431"), size
    body_type = "Content-Type: multipart/form-data; boundary=xyz"
    assert b" 408 " in send_raw(app, body_type, "Content-Length: 15000").splitlines()[0]  # it never comes
    assert b" 408 " in send_raw(app, "Content-Length: 1000", route="queue/join").splitlines()[0]
    assert app.shared.arrivals._under_way == []  # the room is free again
    answers = run_at_once([lambda i=i: send(app, 1000, f"{i}.png") for i in range(20)])
    assert [status for status, _ in answers] == [200] * 20  # so many visitors at once are no flood
    assert [send(app, 15_000, f"large_{i}.png")[0] for i in range(2)] == [200, 200]
    assert b" 503 " in send_raw(app, body_type, "Content-Length: 15000").splitlines()[0]
    held = [file for file in (tmp_path / "uploads").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in held) <= 60_000
    visitor = app.shared.visitor(gr.Request(session_hash="a"))
    used = next(file for file in held if file.name == "3.png")
    visitor.uploads.add(str(used))
    app.shared.arrivals._arrived = dict.fromkeys(app.shared.arrivals._arrived, -1e9)
    app.shared.arrivals.sweep()
    assert [file for file in (tmp_path / "uploads").rglob("*") if file.is_file()] == [used]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_visitors_who_send_the_same_at_once_lose_nothing(
    app: App, run_at_once: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_metaprune.app.arrivals.COUNTED_SECONDS", -1.0)  # each request counts the files

    def send_and_use(session: str) -> list[tuple[int, bool]]:
        outcomes = []
        for i in range(30):
            status, text = send(app, 100, f"{i}.png")
            path = json.loads(text)[0] if status == 200 else ""
            visitor = app.shared.visitor(gr.Request(session_hash=session))
            visitor.uploads.add(path)
            outcomes.append((status, Path(path).is_file()))
            app.shared.visitors.delete_uploads(visitor, [path])
        return outcomes

    outcomes = run_at_once([lambda session=session: send_and_use(session) for session in "abcdef"])
    assert {outcome for one in outcomes for outcome in one} == {(200, True)}
    assert wait_until(lambda: not any(file.suffix == ".png" for file in app.shared.arrivals._files()))


@pytest.fixture
def run_at_once() -> Callable[[list[Callable]], list]:
    def run(calls: list[Callable]) -> list:
        answers: list = [None] * len(calls)

        def call(i: int) -> None:
            answers[i] = calls[i]()

        threads = [threading.Thread(target=call, args=(i,)) for i in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    return run


def look_at_limits(bank_folder: Path) -> None:
    functions = list(make_app(bank_folder).page.fns.values())
    limited = [fn for fn in functions if fn.concurrency_id == "uploads"]
    assert len(limited) == 3
    assert {fn.concurrency_limit for fn in limited} == {MAX_UPLOADS}


@pytest.mark.slow
def test_all_ways_to_add_photos_have_one_limit(bank_folder: Path) -> None:
    """Each photo takes its memory while it is read, however it came."""
    forked.run(look_at_limits, bank_folder)

"""The line of visitors: first come, first served, and nobody waits for one who is gone."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from hf_metaprune.app.jobs import StoppedError
from hf_metaprune.app.waiting_line import BusyError, WaitingLine


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_metaprune.app.waiting_line.POLL_SECONDS", 0.01)


def test_who_comes_first_is_served_first() -> None:
    waiting_line, served = WaitingLine(10), []
    inside = threading.Event()

    def visit(name: str) -> None:
        with waiting_line.join(threading.Event()) as place:
            inside.set()
            for _ in place.wait_for_turn():
                pass
            served.append(name)

    with ExitStack() as first:
        place = first.enter_context(waiting_line.join(threading.Event()))
        assert list(place.wait_for_turn()) == []
        threads = []
        for name in "abc":
            inside.clear()
            threads.append(threading.Thread(target=visit, args=(name,)))
            threads[-1].start()
            assert inside.wait(10)
        assert served == []
    for thread in threads:
        thread.join(10)
    assert served == ["a", "b", "c"]
    assert waiting_line.places == []


def test_who_is_gone_holds_up_nobody() -> None:
    waiting_line, leaver, mine = WaitingLine(10), threading.Event(), threading.Event()
    with waiting_line.join(leaver), waiting_line.join(mine) as place:
        waits = place.wait_for_turn()
        assert next(waits) == 1
        leaver.set()
        assert list(waits) == []


def test_who_stops_does_not_wait() -> None:
    waiting_line, stop = WaitingLine(10), threading.Event()
    with waiting_line.join(threading.Event()), waiting_line.join(stop) as place:
        waits = place.wait_for_turn()
        next(waits)
        stop.set()
        with pytest.raises(StoppedError):
            next(waits)
    assert waiting_line.places == []


def test_a_full_line_takes_nobody() -> None:
    waiting_line = WaitingLine(1)
    with waiting_line.join(threading.Event()):
        another = waiting_line.join(threading.Event())
        with pytest.raises(BusyError, match="come back"):
            another.__enter__()
    with waiting_line.join(threading.Event()):
        pass


def test_a_visitor_has_one_place() -> None:
    waiting_line, stop = WaitingLine(10), threading.Event()
    with waiting_line.join(stop):
        second = waiting_line.join(stop)
        with pytest.raises(BusyError, match="already"):
            second.__enter__()
    with waiting_line.join(stop):
        pass

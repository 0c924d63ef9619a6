"""The line of visitors: first come, first served, and nobody waits for one who is gone."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from hf_metaprune.app.jobs import StoppedError
from hf_metaprune.app.turns import BusyError, Turns


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_metaprune.app.turns.PULSE", 0.01)


def test_who_comes_first_is_served_first() -> None:
    turns, served = Turns(10), []
    inside = threading.Event()

    def visit(name: str) -> None:
        with turns.ticket(threading.Event()) as ticket:
            inside.set()
            for _ in ticket.waiting():
                pass
            served.append(name)

    with ExitStack() as first:
        ticket = first.enter_context(turns.ticket(threading.Event()))
        assert list(ticket.waiting()) == []
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
    assert turns.line == []


def test_who_is_gone_holds_up_nobody() -> None:
    turns, gone, mine = Turns(10), threading.Event(), threading.Event()
    with turns.ticket(gone), turns.ticket(mine) as ticket:
        waits = ticket.waiting()
        assert next(waits) == 1
        gone.set()
        assert list(waits) == []


def test_who_stops_does_not_wait() -> None:
    turns, stop = Turns(10), threading.Event()
    with turns.ticket(threading.Event()), turns.ticket(stop) as ticket:
        waits = ticket.waiting()
        next(waits)
        stop.set()
        with pytest.raises(StoppedError):
            next(waits)
    assert turns.line == []


def test_a_full_line_takes_nobody() -> None:
    turns = Turns(1)
    with turns.ticket(threading.Event()):
        another = turns.ticket(threading.Event())
        with pytest.raises(BusyError, match="come back"):
            another.__enter__()
    with turns.ticket(threading.Event()):
        pass

"""Faults on demand: what the loopback Hub does instead of, before or after its proper answer."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tests.hub.wire import Reply, Request


class Action:
    """Something that goes wrong: `before` may answer instead of the Hub, `after` may change the Hub's answer."""

    def before(self, request: Request) -> Reply | None:
        return None

    def after(self, request: Request, reply: Reply) -> Reply:
        return reply

    @property
    def final(self) -> bool:
        """Whether nothing else happens to the request; faults added later wait for the next one."""
        return False


@dataclass(frozen=True)
class Status(Action):
    """Answer with a status, such as 500, or 429 with `retry_after` seconds, and headers of your own."""

    status: int
    message: str = "a fault on demand"
    code: str | None = None
    retry_after: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def before(self, request: Request) -> Reply:
        wait = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return Reply.error(self.status, self.message, self.code, {**wait, **self.headers})

    @property
    def final(self) -> bool:
        return True


@dataclass(frozen=True)
class Drop(Action):
    """Close the connection without an answer; `done` does the work first, so that only the answer is lost."""

    done: bool = False

    def before(self, request: Request) -> Reply | None:
        return None if self.done else Reply(drop=True)

    def after(self, request: Request, reply: Reply) -> Reply:
        return Reply(drop=True)

    @property
    def final(self) -> bool:
        return not self.done


@dataclass(frozen=True)
class CutShort(Action):
    """Announce the whole body, send its first `keep` bytes, and close the connection."""

    keep: int = 0

    def after(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, keep=self.keep)


@dataclass(frozen=True)
class WrongLength(Action):
    """Announce a body longer (or shorter) by some bytes than what is sent; on a HEAD, nothing but the lie."""

    by: int

    def after(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, length=max(0, len(reply.body) + self.by))


@dataclass(frozen=True)
class Content(Action):
    """Send another body, with the right length of its own; a function gets the right body."""

    body: bytes | Callable[[bytes], bytes]

    def after(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, body=self.body(reply.body) if callable(self.body) else self.body)


@dataclass(frozen=True)
class Header(Action):
    """Send other values of some headers; None takes a header away."""

    headers: Mapping[str, str | None]

    def after(self, request: Request, reply: Reply) -> Reply:
        names = {name.lower() for name in self.headers}
        headers = {name: value for name, value in reply.headers.items() if name.lower() not in names}
        return replace(
            reply, headers=headers | {name: value for name, value in self.headers.items() if value is not None}
        )


@dataclass(frozen=True)
class Redirect(Action):
    """Send the client to the same path elsewhere (the storage host unless told), with the headers of the answer."""

    to: str | None = None
    status: int = 302

    def after(self, request: Request, reply: Reply) -> Reply:
        host = self.to or request.storage_endpoint
        headers = {k: v for k, v in reply.headers.items() if k not in ("Content-Range", "Location")}
        headers.setdefault("X-Linked-Size", str(len(reply.body)))
        return Reply(self.status, headers | {"Location": host + request.target})


@dataclass(frozen=True)
class Call(Action):
    """Run a function before the request is answered; it may change the Hub, by its client or its Python side."""

    function: Callable[[], object]

    def before(self, request: Request) -> None:
        self.function()


@dataclass(frozen=True)
class Wait(Action):
    """Answer late."""

    seconds: float

    def before(self, request: Request) -> None:
        time.sleep(self.seconds)


@dataclass
class Fault:
    """An action for the requests that match, after `skip` of them and at most `times` (None: always)."""

    action: Action
    method: str | None = None
    path: str = ""
    host: str | None = None
    times: int | None = 1
    skip: int = 0
    hits: int = 0
    met: int = field(default=0, repr=False)

    def meets(self, request: Request) -> bool:
        """Tell whether it is this request's turn, and count."""
        right = self.method in (None, request.method) and self.host in (None, request.host)
        if not right or not re.search(self.path, request.target):
            return False
        self.met += 1
        if self.met <= self.skip or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True


class Faults:
    """The faults that lie in wait.

    Those that match a request happen in the order they were added, up to the first that answers it (a `Status`, a
    `Drop`): two of those happen to two requests, one after the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(
        self,
        action: Action,
        *,
        method: str | None = None,
        path: str = "",
        host: str | None = None,
        times: int | None = 1,
        skip: int = 0,
    ) -> Fault:
        """Plan a fault.

        Args:
            action: What happens.
            method: Only for requests of this method.
            path: Only where this regular expression is found in the path and query as they were sent.
            host: Only for "hub" or "storage".
            times: How often; None for always.
            skip: How many matching requests pass unharmed before.

        Returns:
            The fault; its `hits` counts how often it happened.
        """
        fault = Fault(action, method, path, host, times, skip)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def meeting(self, request: Request) -> list[Action]:
        with self._lock:
            actions = []
            for fault in self._faults:
                if fault.meets(request):
                    actions.append(fault.action)
                    if fault.action.final:
                        break
            return actions

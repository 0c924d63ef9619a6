"""What gets through to Gradio: requests that the pages send, of bounded size, with files that were sent here."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any
from urllib.parse import parse_qs

from .arrivals import Arrivals, RefusedError
from .limits import ArrivalLimits
from .unread import UnreadAnswers

API = "/gradio_api/"
POSTED = frozenset({"upload", "queue", "run", "cancel", "reset"})
"""Routes below `API` that take data; Gradio has more, which record, call, edit or reload."""
CLOSED = frozenset(
    {"deep_link", "dev", "stream", "call", "api", "info", "openapi.json", "runs", "run-history", "profiling"}
    | {"vibe-code", "vibe-edit", "undo-vibe-edit", "vibe-starter-queries"}
)
"""Routes below `API` that give data, and that no page uses; some write files or ask other servers."""
FOREIGN_FILE = re.compile(r"proxy=|file[=/][a-z][a-z0-9+.-]+:", re.IGNORECASE)
MAX_BODY_BYTES = 3_000_000
"""Most bytes of a request that sends no file; an event that names a thousand photos with long names has a third."""
MAX_HEADERS, MAX_HEADER_BYTES = 20, 10_000
"""Most headers of a file in an upload, and most bytes of each."""
MAX_EVENTS, EVENT_SECONDS = 60, 10.0
"""Most events of one visitor in so many seconds."""
FILES_PER_EVENT = 250
"""Files that an event may name, and count as one; one that names more counts as several."""
MAX_OTHERS = 100
"""Most lists and objects of an event, besides files: the pages send about ten."""
MAX_TEXT, MAX_FILE_TEXT = 10_000, 2000
"""Most characters of an event, besides files, and of each file that it names: errors of Gradio repeat them."""
MAX_QUERY = 200
"""Most bytes of a query; the pages send names of sessions and uploads, of about 11 characters."""
SESSION = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""The name of a session; Gradio's have 11 letters and digits. Names are kept, those of visitors who have left, too."""
log = logging.getLogger(__name__)


class Gate:
    """ASGI middleware before Gradio.

    Args:
        app: the application behind.
        arrivals: the files that this server holds.
        unread: the answers that wait for their pages.
    """

    def __init__(self, app: Any, arrivals: Arrivals, unread: UnreadAnswers) -> None:
        self.app, self.arrivals, self.unread = app, arrivals, unread
        self._events: deque[tuple[float, str, int]] = deque()
        """Time and visitor of the last events, and what each counts."""
        self._counts: Counter[str] = Counter()
        """Number of the last events by visitor."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self._pass_on(scope, receive, send)
        except RefusedError as refusal:
            from starlette.responses import PlainTextResponse

            await PlainTextResponse(str(refusal), refusal.status)(scope, receive, send)

    async def _pass_on(self, scope: Any, receive: Any, send: Any) -> None:
        _, is_api, route = scope["path"].partition(API)  # the first one: a file's address may have another
        name = route.split("/")[0]
        if is_api and len(scope["query_string"]) > MAX_QUERY:  # Gradio remembers each id of an upload for ever
            raise RefusedError(400, "the address is too long")
        if scope["method"] != "POST":
            if is_api and (name in CLOSED or FOREIGN_FILE.match(route)):
                raise RefusedError(404, "there is no such page")
            query = parse_qs(scope["query_string"].decode("latin-1"))
            with self.unread.read_by(query.get("session_hash", [""])[-1]) if name == "queue" else nullcontext():
                await self.app(scope, receive, send)
        elif name not in POSTED:
            raise RefusedError(404, "there is no such page")
        elif name == "upload":
            await self._take_upload(scope, receive, send)
        else:
            body = await _read_body(receive, self.arrivals.limits)
            self._check_event(body)
            await self.app(scope, _replay(body, receive), send)

    def _check_event(self, body: bytes) -> None:
        """Check how often a visitor sends events, and which files an event names.

        Raises:
            RefusedError: the event is refused.
        """
        try:
            event = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, "this is no event") from error
        session = event.get("session_hash") if isinstance(event, dict) else None
        if not isinstance(session, str) or not SESSION.fullmatch(session):
            raise RefusedError(400, "this is no session")
        now = time.monotonic()
        while self._events and now - self._events[0][0] > EVENT_SECONDS:
            _, former, count = self._events.popleft()
            self._counts[former] -= count
            if not self._counts[former]:
                del self._counts[former]
        paths = list(_named_files(event))
        count = 1 + len(paths) // FILES_PER_EVENT
        if self._counts[session] + count > MAX_EVENTS:
            raise RefusedError(429, "too many events: wait some seconds")
        self._events.append((now, session, count))
        self._counts[session] += count
        self.unread.make_room(session, self._counts)
        if not all(map(self.arrivals.holds, dict.fromkeys(paths))):
            raise RefusedError(400, "an event names a file that was not sent here")

    async def _take_upload(self, scope: Any, receive: Any, send: Any) -> None:
        """Let an upload through within the limits of `Arrivals`, and note its files.

        Raises:
            RefusedError: it is too large, does not say its size, or there is no room.
        """
        from starlette.concurrency import run_in_threadpool

        limits, body, status, n_bytes = self.arrivals.limits, bytearray(), 0, _stated_bytes(scope)
        start, n_received, is_complete = time.monotonic(), 0, False
        refusal: RefusedError | None = None

        async def receive_in_time() -> Any:
            nonlocal n_received, is_complete, refusal
            if is_complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), limits.silent_seconds)
                content = message.get("body", b"")
                n_received += len(content)
                is_complete = not message.get("more_body", False)
                if is_complete:
                    arrival.complete()
                if not is_complete and _is_slow(n_received, start, limits):
                    raise TimeoutError
                form.feed(content)
                arrival.grow(len(content))
            except (asyncio.TimeoutError, TimeoutError):  # two classes before Python 3.11
                log.info("an upload of %s bytes was too slow and is cut", n_bytes)
                refusal = RefusedError(408, "the upload was too slow")
            except RefusedError as error:
                refusal = error
            if refusal is not None:
                raise refusal
            return message

        async def send_and_note(message: Any) -> None:
            nonlocal status
            if refusal is not None:  # what Gradio says of a body that ended
                return
            status = message.get("status", status)
            body.extend(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body") and status == 200:
                self.arrivals.note(json.loads(bytes(body)))
            await send(message)

        room = self.arrivals.room_for(n_bytes)
        arrival = await run_in_threadpool(room.__enter__)
        try:
            form = UploadForm(scope, arrival.begin_file)
            await self.app(scope, receive_in_time, send_and_note)
        except RefusedError as error:
            refusal = error
        finally:
            room.__exit__(None, None, None)
        if refusal is not None and not status:
            raise refusal


class UploadForm:
    """The form of an upload, checked while it arrives: Gradio writes files to disk, and keeps other fields in memory.

    Args:
        scope: the request.
        begin_file: is called before each file; may raise `RefusedError`.

    Raises:
        RefusedError: the request is no form.
    """

    def __init__(self, scope: Any, begin_file: Callable[[], None]) -> None:
        from python_multipart.exceptions import FormParserError
        from python_multipart.multipart import MultipartParser, parse_options_header

        kind, options = parse_options_header(dict(scope["headers"]).get(b"content-type", b""))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise RefusedError(400, "an upload is a form with files")
        self._parse_options, self._begin_file = parse_options_header, begin_file
        self._field, self._value, self._is_file, self._n_headers = b"", b"", False, 0
        callbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._add_field,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_part,
        }
        try:
            self._parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise RefusedError(400, "the form of the upload is malformed") from error

    def feed(self, content: bytes) -> None:
        """Check the next bytes of the body.

        Raises:
            RefusedError: the form is malformed, or a part of it is no file.
        """
        from python_multipart.exceptions import FormParserError

        try:
            self._parser.write(content)
        except FormParserError as error:
            raise RefusedError(400, "the form of the upload is malformed") from error

    def _begin(self) -> None:
        self._is_file, self._n_headers = False, 0

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._check_header()

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._field) + len(self._value) > MAX_HEADER_BYTES or self._n_headers > MAX_HEADERS:
            raise RefusedError(400, "the headers of a file are too long")

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            file_name = self._parse_options(self._value)[1].get(b"filename", b"")
            self._is_file = file_name not in (b"", b".", b"..")
        self._field, self._value, self._n_headers = b"", b"", self._n_headers + 1

    def _check_part(self) -> None:
        if not self._is_file:
            raise RefusedError(400, "an upload has files only")
        self._begin_file()


def _stated_bytes(scope: Any) -> int | None:
    """Return the size that a request states, or None if it states none that holds."""
    headers = dict(scope["headers"])
    text = headers.get(b"content-length", b"").decode("latin-1")
    is_number = len(text) < 20 and text.isascii() and text.isdecimal()
    return int(text) if is_number and b"transfer-encoding" not in headers else None


def _is_slow(n_bytes: int, start: float, limits: ArrivalLimits) -> bool:
    """Return whether a request that began at some time has brought too little since."""
    return n_bytes < limits.bytes_per_second * (time.monotonic() - start - limits.silent_seconds)


async def _read_body(receive: Any, limits: ArrivalLimits) -> bytes:
    """Return the body of a request.

    Raises:
        RefusedError: it is too large or too slow, or the sender has left.
    """
    body, has_more, start = bytearray(), True, time.monotonic()
    while has_more:
        try:
            message = await asyncio.wait_for(receive(), limits.silent_seconds)
        except (asyncio.TimeoutError, TimeoutError):  # two classes before Python 3.11
            raise RefusedError(408, "the request was too slow") from None
        if message["type"] != "http.request":
            raise RefusedError(400, "the request was cut")
        body.extend(message.get("body", b""))
        if len(body) > MAX_BODY_BYTES:
            raise RefusedError(413, f"at most {MAX_BODY_BYTES // 1_000_000} MB can be sent at a time")
        has_more = message.get("more_body", False)
        if has_more and _is_slow(len(body), start, limits):
            raise RefusedError(408, "the request was too slow")
    return bytes(body)


def _replay(body: bytes, receive: Any) -> Any:
    """Return a function that gives a body that was read already, and then what comes after it."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Any:
        return messages.pop() if messages else await receive()

    return receive_again


def _named_files(event: Any) -> Iterator[str]:
    """Yield the paths of all files that an event names, at any depth.

    Raises:
        RefusedError: it has many lists and objects that name no file, or much text; Gradio would explain at length what
            is wrong with each of them.
    """
    pending, n_others, n_characters = [event], 0, 0
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if "path" in part and part["path"] is not None:
                yield str(part["path"])
                _check_file(part)
                continue
            pending += [*part, *part.values()]
        elif isinstance(part, list):
            pending += part
        else:
            n_characters += _length(part)
            if n_characters > MAX_TEXT:
                raise RefusedError(400, "an event has too much text")
            continue
        n_others += 1
        if n_others > MAX_OTHERS:
            raise RefusedError(400, "an event has too many values")


def _check_file(file: dict[str, Any]) -> None:
    """Check that an object that names a file is one of Gradio's, which have a few texts and numbers, and `meta`.

    Raises:
        RefusedError: it is not.
    """
    meta = file.get("meta") or {}
    values = [*file, *(value for key, value in file.items() if key not in ("meta", "path"))]
    values += [*meta, *meta.values()] if isinstance(meta, dict) else [meta]
    is_flat = not any(isinstance(value, (dict, list)) for value in values)
    if not is_flat or len(str(file["path"])) + sum(map(_length, values)) > MAX_FILE_TEXT:
        raise RefusedError(400, "an event has a file that is none")


def _length(value: Any) -> int:
    """Return the number of characters of a value as text.

    Raises:
        RefusedError: it has half of a surrogate pair; Gradio would fail at it again and again.
    """
    text = str(value)
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise RefusedError(400, "an event has text that is none")
    return len(text)

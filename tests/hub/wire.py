"""HTTP of the loopback Hub: requests, replies, the log of both, and a listener on a port of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Request:
    """What a client asks for; `target` is the path and query as they were sent, still quoted."""

    method: str
    target: str
    headers: Message
    body: bytes
    host: str
    endpoint: str
    storage_endpoint: str
    token: Any = None

    @property
    def path(self) -> str:
        return self.target.split("?", 1)[0]

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    def one(self, name: str, default: str | None = None) -> str | None:
        """The last value of a parameter."""
        return self.query.get(name, [default])[-1]

    def flag(self, name: str) -> bool:
        return (self.one(name) or "").lower() in ("1", "true")

    def json(self) -> Any:
        return json.loads(self.body or b"{}")


@dataclass(frozen=True)
class Reply:
    """What the Hub answers; the last four fields are how it may lie or break off."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    drop: bool = False
    keep: int | None = None
    length: int | None = None

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
        body = json.dumps(value).encode()
        return cls(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, body)

    @classmethod
    def error(
        cls, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        code_header = {"X-Error-Code": code} if code else {}
        one_line = " ".join(message.split())
        return cls.json({"error": message}, status, {**code_header, "X-Error-Message": one_line, **(headers or {})})


@dataclass(frozen=True)
class Seen:
    """One request in the log, as the server saw it and answered it; the status of a dropped one is 0."""

    method: str
    path: str
    status: int
    bytes_in: int
    bytes_out: int
    authorization: str | None
    host: str
    port: int
    range: str | None = None
    user_agent: str | None = None


Answer = Callable[[Request], Reply]


class Listener(ThreadingHTTPServer):
    """A server on a free port of the loopback interface that ends quickly, idle connections and all."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str, answer: Answer, note: Callable[[Seen], None], crash: Callable[[str], None]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.answer, self.note, self.crash = name, answer, note, crash
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.storage_endpoint = self.endpoint
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True, name=f"loopback {name}")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        with self._lock:
            threads = dict(self._open)
        for connection in threads:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in [self._thread, *threads.values()]:
            thread.join(timeout=5)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open[request] = threading.current_thread()
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                del self._open[request]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that went away is none of our faults
            self.crash(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for head and body
    server: Listener

    def answer(self) -> None:
        body = self._body()
        server = self.server
        request = Request(
            self.command, self.path, self.headers, body, server.name, server.endpoint, server.storage_endpoint
        )
        reply = server.answer(request)
        sends_body = self.command != "HEAD" and reply.status not in (204, 304)
        length = len(reply.body) if reply.length is None else reply.length
        content = reply.body[: reply.keep] if sends_body and not reply.drop else b""
        # Noted before it is sent: a client that has its answer finds it in the log
        server.note(
            Seen(
                self.command,
                self.path,
                0 if reply.drop else reply.status,
                len(body),
                len(content),
                self.headers.get("Authorization"),
                server.name,
                server.server_port,
                self.headers.get("Range"),
                self.headers.get("User-Agent"),
            )
        )
        if not reply.drop:
            self._send(reply, length, content)
        if reply.drop or (sends_body and len(content) != length):
            self._hang_up()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, reply: Reply, length: int, content: bytes) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.status not in (204, 304):
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        pass

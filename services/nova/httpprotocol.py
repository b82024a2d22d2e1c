"""One connection of the web server: eventlet's protocol, with limits of time and size.

A connection is the list that eventlet.wsgi works on, `[address, socket, state]`, to which `Protocol` appends itself.
Source of the states: eventlet/wsgi.py.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nova import green, httpframing

# How long a stop waits for the first bytes of a connection that has just been made.
FIRST_BYTES_S = 0.2
IDLE, REQUEST, CLOSE = "idle", "request", "close"
_BAD_REQUEST = b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much, and how long, a client may take. A body may last `body_s` and 1 s for each `min_rate` bytes.

    Lines of the head end at 8 KiB and the head at 64 KiB, which are eventlet's limits.
    """

    threads: int = 1000
    head_s: float = 10.0
    idle_s: float = 75.0
    stall_s: float = 60.0
    body_s: float = 30.0
    min_rate: int = 1024
    body_max_bytes: int = 5 * 1024**3


class Protocol(green.wsgi.HttpProtocol):
    """What eventlet calls for each connection; its server carries our `limits`."""

    rfile: Any
    headers: Any

    def __init__(self, connection: list[Any], server: Any) -> None:
        connection.append(self)
        # A stop may have come between the accept and now.
        self.is_last = connection[2] == CLOSE
        self.has_served = False
        self._limits: Limits = server.limits
        self._head: Any = None
        self._is_too_large = False
        super().__init__(connection, server)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        finally:
            self._head_ends()
        self.has_served = True
        if self.is_last:
            self.close_connection = True
        green.sleep(0)  # a busy keep-alive connection leaves the others their turn

    def _read_request_line(self) -> Any:
        # Who has not asked for anything yet is held for as long as a head may take.
        self.connection.settimeout(self._limits.idle_s if self.has_served else self._limits.head_s)
        try:
            if not self.rfile.peek(1):
                return b""
        except (OSError, ValueError):
            return b""
        self._head = green.spawn_after(self._limits.head_s, cut, self.connection)
        return super()._read_request_line()

    def parse_request(self) -> bool:
        """Whether there is a whole head that can be read in one way only.

        HTTP/0.9 is refused as well: of its requests nobody can tell whether the end is missing.
        """
        head = self.rfile = httpframing.Head(self.rfile)
        is_line = self.raw_requestline.endswith(b"\n") and len(self.raw_requestline.split()) == 3
        if is_line and not super().parse_request():
            return False
        if is_line and head.is_whole and httpframing.is_unambiguous(self.headers):
            return True
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.write(_BAD_REQUEST)
        return False

    def _head_ends(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def get_environ(self) -> dict[str, Any]:
        self._head_ends()
        if self.is_last:
            self.close_connection = True
        environ: dict[str, Any] = super().get_environ()
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"]
        if body.chunked_input:
            body.rfile = httpframing.Chunks(body.rfile)
        body.read = _bounded(body.read, length, self.connection, self._limits)
        body.readline = _bounded(body.readline, length, self.connection, self._limits)
        self._is_too_large = length > self._limits.body_max_bytes
        return environ

    def handle_one_response(self) -> None:
        if self._is_too_large:
            self.wfile.write(_TOO_LARGE)
            self.close_connection = True
            return
        super().handle_one_response()


def end_softly(connection: list[Any]) -> None:
    """Close it where it is idle; otherwise its response says `Connection: close` and it ends after that.

    A request that is on its way has begun: its first bytes are here, or the connection is so young that they may
    come any moment.
    """
    is_idle = is_kept_idle(connection)
    was, connection[2] = connection[2], CLOSE
    protocol = connection[3] if len(connection) > 3 else None
    if protocol is not None:
        protocol.is_last = True
    if was != IDLE:
        if protocol is not None:
            protocol.close_connection = True
    elif is_idle:
        cut(connection[1])
    else:
        green.spawn_after(FIRST_BYTES_S, _cut_if_silent, connection)


def is_kept_idle(connection: list[Any]) -> bool:
    """Whether it has had its answers, and has asked for nothing since."""
    protocol = connection[3] if len(connection) > 3 else None
    return (
        protocol is not None and connection[2] == IDLE and protocol.has_served and not _has_bytes(connection[1])
    )


def _cut_if_silent(connection: list[Any]) -> None:
    """eventlet sets another state as soon as a request line is there."""
    if connection[2] == CLOSE and not _has_bytes(connection[1]):
        cut(connection[1])


def _has_bytes(sock: Any) -> bool:
    socket = green.original("socket")
    try:
        return bool(sock.fd.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


def cut(sock: Any) -> None:
    """Wake whoever reads or writes there: it is over."""
    with contextlib.suppress(OSError):
        sock.shutdown(green.original("socket").SHUT_RDWR)


def _bounded(read: Callable[..., bytes], length: int, connection: Any, limits: Limits) -> Callable[..., bytes]:
    """`read` that cuts the connection of a client that sends too slowly, and refuses one that sends too much.

    `length` is what the head announces; a read without a size waits for all of it.
    """
    total = 0

    def reading(size: int | None = None) -> bytes:
        nonlocal total
        wanted = length if size is None or size < 0 else size
        timer = green.spawn_after(limits.body_s + wanted / limits.min_rate, cut, connection)
        try:
            data = read() if size is None or size < 0 else read(size)
        finally:
            timer.cancel()
        total += len(data)
        if total > limits.body_max_bytes:
            raise OSError(errno.EFBIG, "the body is too large")
        return data

    return reading

"""A blocking connection to the daemon: request -> reply, and pushed events.

Knows frames and errors, nothing of what the verbs mean. One thread uses a link. Replies to other requests and
events that arrive while one reply is awaited are kept, so nothing is lost by asking. A socket that nobody
listens on is `NotRunning`, decided by connecting and never by the file's existence.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from novad.client.deadline import Deadline
from novad.client.interrupts import readable
from novad.core.errors import BY_CODE, NotRunning, NovadError, WireError
from novad.core.place import Place
from novad.core.wire import Decoder, Error, Event, Frame, Reply, Request, encode

CHUNK = 256 * 1024
MAX_FDS = 64
ANSWER_S = 10.0


class Unanswered(NovadError):
    """The daemon accepted a connection but did not answer in time."""

    code = "unanswered"


class Link:
    """One connection. `trace` is told each request (for `-v`)."""

    def __init__(self, sock: socket.socket, trace: Callable[[Request], None] | None = None) -> None:
        self._sock = sock
        self._trace = trace
        self._decoder = Decoder()
        self._last_id = 0
        self._answers: dict[int, Reply | Error] = {}
        self._events: deque[dict[str, Any]] = deque()
        self._fds: list[int] = []
        self._ended = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()
        for descriptor in self.take_descriptors():
            os.close(descriptor)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def daemon_pid(self) -> int:
        """The process at the other end, as the kernel tells it (SO_PEERCRED)."""
        data = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        return int(struct.unpack("iII", data)[0])

    @property
    def ended(self) -> bool:
        """The daemon closed the connection; what it sent before can still be read."""
        return self._ended

    def request(self, verb: str, timeout_s: float | None = ANSWER_S, /, **args: Any) -> dict[str, Any]:
        """The result of one request. Raises the daemon's error by its class, `NotRunning`, `Unanswered`."""
        return self.result(self.send(verb, **args), timeout_s)

    def send(self, verb: str, /, **args: Any) -> int:
        """Sends a request without waiting; its id."""
        self._last_id += 1
        request = Request(self._last_id, verb, args)
        if self._trace:
            self._trace(request)
        data = encode(request)
        try:
            self._sock.setblocking(True)
            self._sock.sendall(data)
        except OSError as error:
            raise gone(error) from error
        return request.id

    def result(self, request_id: int, timeout_s: float | None = ANSWER_S) -> dict[str, Any]:
        """Waits for the answer to `request_id`; None waits for ever."""
        deadline = Deadline(timeout_s)
        while (answer := self._answers.pop(request_id, None)) is None:
            if self._ended:
                raise gone()
            if not self._receive(deadline.left_s()):
                raise unanswered(timeout_s)
        if isinstance(answer, Reply):
            return answer.result
        raise as_exception(answer)

    def answered(self, request_id: int) -> bool:
        return request_id in self._answers

    def wait(self, others: Sequence[Any], timeout_s: float | None = None) -> list[Any]:
        """Those of `others` that can be read, and this link where events are here, or its end; none after `timeout_s`.

        An event that came along with an answer is here already, and the socket says nothing of it any more.
        """
        if self._events:
            return [self, *readable(others, 0.0)]
        return readable([self, *others], timeout_s)

    def next_event(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """The next pushed event, None when `timeout_s` ran out. Raises `NotRunning` once the daemon is gone."""
        deadline = Deadline(timeout_s)
        while not self._events:
            if self._ended:
                raise gone()
            if not self._receive(deadline.left_s()):
                return None
        return self._events.popleft()

    def queued_events(self) -> list[dict[str, Any]]:
        """The events that came before the last answer, without reading more."""
        events = list(self._events)
        self._events.clear()
        return events

    def pending_events(self) -> list[dict[str, Any]]:
        """All events that are here now, without waiting; at the end of the stream, check `ended`."""
        while not self._ended and self._receive(0.0):
            pass
        return self.queued_events()

    def take_descriptors(self) -> list[int]:
        """The descriptors that came with the answers so far; the caller closes them."""
        fds, self._fds = self._fds, []
        return fds

    def _receive(self, timeout_s: float | None) -> bool:
        """Reads once, at most `timeout_s`; False when nothing came."""
        if not readable([self._sock], timeout_s):
            return False
        try:
            # Descriptors come ahead of the reply they belong to (unix(7), SCM_RIGHTS).
            data, fds, _, _ = socket.recv_fds(self._sock, CHUNK, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
            self._fds += fds
        except ConnectionError:
            data = b""
        if not data:
            self._ended = True
        for frame in self._decoder.feed(data):
            self._keep(frame)
        return True

    def _keep(self, frame: Frame) -> None:
        if isinstance(frame, Event):
            self._events.append(frame.event)
        elif isinstance(frame, (Reply, Error)):
            self._answers[frame.id] = frame
        else:
            raise WireError(f"the daemon sent a request (`{frame.verb}`)", "novad down, then novad up")


def connect(place: Place, trace: Callable[[Request], None] | None = None) -> Link:
    """A link to the daemon of `place`. Raises `NotRunning` where nobody answers."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A socket with a timeout of Python's does not wait for a place in a full queue (connect(2), EAGAIN).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(ANSWER_S), 0))
        sock.connect(place.socket)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        sock.close()
        raise NotRunning(f"novad is not running for {place.config}", "novad up") from error
    except PermissionError as error:
        sock.close()
        raise NovadError(f"{place.socket}: it belongs to another user", "novad --namespace NAME up") from error
    except BlockingIOError as error:
        sock.close()
        raise unanswered() from error
    except OSError as error:
        sock.close()
        raise NovadError(f"{place.socket}: {error.strerror or error}") from error
    return Link(sock, trace)


def unanswered(timeout_s: float | None = ANSWER_S) -> Unanswered:
    return Unanswered(f"the daemon did not answer within {timeout_s:g} s", "novad down --kill stops it")


def gone(error: OSError | None = None) -> NotRunning:
    reason = f" ({error.strerror})" if error and error.strerror else ""
    return NotRunning(
        f"the daemon closed the connection{reason}", "novad status; its own log is .novad/novad.log"
    )


def as_exception(answer: Error) -> NovadError:
    """The daemon's error as the exception of the same class, with its code kept."""
    error = BY_CODE.get(answer.code, NovadError)(answer.message, answer.hint)
    if answer.code == WireError.code and not answer.hint:
        error.hint = "the daemon may be of another version: novad down, then novad up"
    error.code = answer.code
    return error

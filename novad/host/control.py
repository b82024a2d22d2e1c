"""The control socket: frames in from clients, answers and events out.

Unix socket, mode 0600 in a 0700 directory, the peer's uid checked besides; no TCP. The accept loop is our own and
keeps a spare descriptor: eventlet's servers end for good at the first EMFILE. A client that sends garbage, or
half a frame and no more, or nothing, or does not read what it asked for, loses its connection and nothing else
happens.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from novad.core import wire
from novad.core.errors import NovadError, WireError
from novad.host.hub import Timer, Watcher

BACKLOG = 128
ACCEPTS_PER_TURN = 32
RECEIVE_BYTES = 65536
# The first frame may take this long, and the rest of a frame that has begun: so that with ten thousand of them nobody
# is cut off later than after 10 s.
FRAME_S = 9.0
# What a client may leave unread: above the first number nothing more that it asks is taken up, above the second log
# lines are skipped, above the third it is cut off.
ASK_BYTES = 256 * 1024
SKIP_BYTES = 2 * 1024 * 1024
CUT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Desk:
    """What a connection asks of the daemon: `on_request(connection, request)`, and `before_news()` ahead of whatever a
    client may act on: what it hears must be on the disk by then."""

    on_request: Callable[[Connection, wire.Request], None]
    before_news: Callable[[], object]


class Connection:
    """One client. `on_close` callbacks run once, however it ends; `on_taken` ones each time that it has taken all.

    Its requests are handed over one at a time, the next after `handled`, and nothing more is read while one waits or
    while the client does not take its answers: a client that asks without end waits in its own queue alone.
    """

    def __init__(self, sock: socket.socket, desk: Desk) -> None:
        self._socket = sock
        self._desk = desk
        self._decoder = wire.Decoder()
        self._requests: deque[wire.Request] = deque()
        self._in_hand = False
        self._out = bytearray()
        # Who says nothing at all is no client either.
        self._timer: Timer | None = Timer(FRAME_S, self.close)
        self._writer: Watcher | None = None
        self.on_close: list[Callable[[], None]] = []
        self.on_taken: list[Callable[[], None]] = []
        self.is_open = True
        self._reader: Watcher | None = Watcher(sock.fileno(), self._readable)

    @property
    def unread_bytes(self) -> int:
        """What the client has not taken yet."""
        return len(self._out)

    def _readable(self) -> None:
        if self._is_busy():
            self._pause()
            return
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
            return
        try:
            frames = self._decoder.feed(data)
        except WireError as error:
            self.send(wire.Error(0, error.code, error.message))
            self.close()
            return
        if frames:
            self._limit(None)
        if self._decoder.has_half_frame and self._timer is None:
            self._limit(FRAME_S)
        self._requests += (frame for frame in frames if isinstance(frame, wire.Request))
        self._go_on()

    def _is_busy(self) -> bool:
        return self._in_hand or bool(self._requests) or len(self._out) > ASK_BYTES

    def _pause(self) -> None:
        """Read nothing for now; who goes on asking and takes no answers is given up after a while."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._limit(FRAME_S if len(self._out) > ASK_BYTES else None)

    def handled(self) -> None:
        """The request that was handed over is dealt with, even if its answer comes later."""
        if self._requests:
            # Not in this turn of the loop: the others' come first.
            Timer(0.0, self._put_down)
        else:
            self._put_down()

    def _put_down(self) -> None:
        self._in_hand = False
        self._go_on()

    def _go_on(self) -> None:
        """Hand over the next request, or read on."""
        if not self.is_open or self._in_hand:
            return
        if len(self._out) > ASK_BYTES:
            # What it has asked meanwhile is not read, so that it is not known: then it has asked.
            if (self._requests or self._reader is None) and self._timer is None:
                self._limit(FRAME_S)
        elif self._requests:
            self._in_hand = True
            self._desk.on_request(self, self._requests.popleft())
        elif self._reader is None:
            self._reader = Watcher(self._socket.fileno(), self._readable)
            self._limit(FRAME_S if self._decoder.has_half_frame else None)

    def _limit(self, seconds: float | None) -> None:
        """Close the connection after `seconds`; None: no limit any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else Timer(seconds, self.close)

    def reply(self, request: wire.Request, result: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Answer; `fds` go along (SCM_RIGHTS, unix(7)) and stay ours to close."""
        if fds and self.is_open:
            try:
                # Ahead of the frame, between frames: the client collects descriptors as they come, and a blank
                # line is no frame.
                self._flush()
                if not self._out:
                    socket.send_fds(self._socket, [b"\n"], list(fds))
                else:
                    self.close()
            except OSError:
                self.close()
        self.send(wire.Reply(request.id, result))

    def fail(self, request: wire.Request, error: NovadError) -> None:
        self.send(wire.Error(request.id, error.code, error.message, error.hint))

    def send(self, frame: wire.Frame) -> None:
        """Queue a frame; what the socket does not take now goes out as the client reads."""
        if not self.is_open:
            return
        if not _is_output(frame):
            self._desk.before_news()
        try:
            self._out += wire.encode(frame)
        except WireError as error:
            self._out += wire.encode(wire.Error(frame.id, error.code, error.message))
        self._flush()

    def _flush(self) -> None:
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            del self._out[:sent]
        self._go_on()
        if len(self._out) > CUT_BYTES:
            self.close()
        elif self._out and self._writer is None:
            self._writer = Watcher(self._socket.fileno(), self._flush, write=True)
        elif not self._out and self._writer is not None:
            self._writer.close()
            self._writer = None
            for callback in self.on_taken:
                callback()

    def close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._requests.clear()
        for watcher in (self._reader, self._writer):
            if watcher is not None:
                watcher.close()
        self._limit(None)
        self._socket.close()
        for callback in self.on_close:
            callback()


def _is_output(frame: wire.Frame) -> bool:
    """A child's lines go out as they come, whether they are in the file yet or not."""
    return isinstance(frame, wire.Event) and frame.event.get("type") == "lines"


class ControlSocket:
    """Listens at `path` until closed."""

    def __init__(self, path: str, desk: Desk) -> None:
        self.path = path
        self._desk = desk
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._connections: set[Connection] = set()
        self._socket = self._listen()
        self._watcher = Watcher(self._socket.fileno(), self._acceptable)

    def _listen(self) -> socket.socket:
        """Bound under another name and renamed, so that there is no moment of a wider mode or of no socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        fresh = f"{self.path}.new"
        try:
            os.unlink(fresh)
        except FileNotFoundError:
            pass
        mask = os.umask(0o177)
        try:
            sock.bind(fresh)
        finally:
            os.umask(mask)
        sock.listen(BACKLOG)
        os.rename(fresh, self.path)
        return sock

    def _acceptable(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._shed()
                return
            self._welcome(sock)

    def _shed(self) -> None:
        """Out of descriptors: with the spare one, take a client off the queue and let it go."""
        os.close(self._spare)
        try:
            self._socket.accept()[0].close()
        except OSError:
            pass
        try:
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._spare = os.dup(self._socket.fileno())

    def _welcome(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        _pid, uid, _gid = struct.unpack("iII", credentials)
        if uid != os.getuid():
            sock.close()
            return
        connection = Connection(sock, self._desk)
        self._connections.add(connection)
        connection.on_close.append(lambda: self._connections.discard(connection))

    @property
    def connections(self) -> list[Connection]:
        return list(self._connections)

    def close(self) -> None:
        """Stop listening, and drop the clients after a last try to send them what is theirs."""
        self._watcher.close()
        self._socket.close()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        for connection in self.connections:
            connection.close()
        os.close(self._spare)

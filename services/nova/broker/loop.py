"""The front end: sockets and time for a broker. The only module that does I/O.

One epoll descriptor carries the listeners and all connections; `turn` does all that is ready: reads each socket
once, runs what is due, ends the broker's turn, and sends each connection's output in one call. With nothing to do
it sleeps in epoll until the broker's next deadline, which is never on an idle broker.

An epoll descriptor can itself be waited for, so the same loop serves a process of its own (`main`) and a greenlet
in an eventlet hub (`server`), and neither knows of the other.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from nova.broker.broker import Broker
from nova.broker.output import Output
from nova.broker.syncer import Start, Syncer

LOG = logging.getLogger("nova.broker")

READ_BYTES = 128 * 1024
ACCEPTS_A_TURN = 64
PAUSE_S = 0.2  # of accepting, when there is no descriptor at all
IN, OUT = 1, 4  # EPOLLIN, EPOLLOUT: `select` may be patched, the numbers are Linux's
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


class Peer(Protocol):
    """What the loop serves: an AMQP connection, or an administrator's."""

    is_finished: bool  # hang up once the output is sent
    is_abandoned: bool  # hang up at once
    is_paused: bool  # do not read: a publisher that is held
    output: Output

    def feed(self, data: bytes) -> None: ...

    def crash(self, error: Exception) -> None: ...

    def lost(self) -> None: ...


class _Link:
    """A socket and whom it belongs to; `rest` is output that the socket would not take yet."""

    __slots__ = ("events", "peer", "rest", "socket")

    def __init__(self, sock: socket.socket, peer: Peer) -> None:
        self.socket = sock
        self.peer = peer
        self.rest: memoryview | None = None
        self.events = IN


class Loop:
    def __init__(
        self, broker: Broker, epoll: Callable[[], Any] | None = None, start_thread: Start | None = None
    ) -> None:
        """`epoll` and `start_thread` are the real ones where `select` and `_thread` have been patched."""
        self.broker = broker
        self._epoll = epoll() if epoll is not None else select.epoll()
        self._listeners: dict[int, tuple[socket.socket, Callable[[str], Peer]]] = {}
        self._links: dict[int, _Link] = {}
        self._fds: dict[Peer, int] = {}
        self._wakers: dict[int, Callable[[], None]] = {}
        self._spare_fd = _spare()
        self._syncer = Syncer(broker.note_synced, start_thread)
        self.watch(self._syncer.fileno(), self._syncer.collect)
        broker.syncer = self._syncer.begin
        broker.now_s = time.monotonic()

    def fileno(self) -> int:
        """Readable when `turn` has something to do, apart from deadlines."""
        fd: int = self._epoll.fileno()
        return fd

    def listen(self, listener: socket.socket, make_peer: Callable[[str], Peer]) -> None:
        """Accepts from `listener`; `make_peer` gets the peer's address in words."""
        listener.setblocking(False)
        self._listeners[listener.fileno()] = (listener, make_peer)
        self._epoll.register(listener.fileno(), IN)

    def watch(self, fd: int, action: Callable[[], None]) -> None:
        """Calls `action` when `fd` is readable."""
        self._wakers[fd] = action
        self._epoll.register(fd, IN)

    def begin_stop(self) -> None:
        """Accepts nobody any more and tells every client to go; `is_quiet` says when they have."""
        self._stop_listening()
        for connection in list(self.broker.connections):
            connection.force_close("broker forced connection closure with reason 'shutdown'")

    def _stop_listening(self) -> None:
        for fd, (listener, _) in self._listeners.items():
            self._epoll.unregister(fd)
            listener.close()
        self._listeners.clear()

    @property
    def is_quiet(self) -> bool:
        """Nobody is connected."""
        return not self._links

    def timeout_s(self) -> float | None:
        """How long there is nothing to do unless a descriptor becomes ready; None is for ever."""
        if self.broker.has_work:
            return 0.0
        deadline_s = self.broker.next_deadline_s()
        return None if deadline_s is None else max(0.0, deadline_s - time.monotonic())

    def turn(self, timeout_s: float | None) -> None:
        """Waits at most so long for something to happen, and does it."""
        ready = self._epoll.poll(-1 if timeout_s is None else timeout_s)
        self.broker.now_s = time.monotonic()
        for fd, events in ready:
            link = self._links.get(fd)
            if link is not None:
                if events & OUT:
                    self._send_rest(fd, link)
                if events & ~OUT:
                    self._read(fd, link)
            elif fd in self._wakers:
                self._wakers[fd]()
            elif fd in self._listeners:
                self._accept(*self._listeners[fd])
        self.broker.run_due()
        self.broker.end_turn()
        self.send_all()

    def send_all(self) -> None:
        """Sends what is collected; what that makes possible (consumers go on) waits for the next turn."""
        dirty, self.broker.dirty = self.broker.dirty, []
        for connection in dirty:
            self._send(connection)

    def close(self) -> None:
        """Hangs up on everybody."""
        self._stop_listening()
        for fd, link in list(self._links.items()):
            self._drop(fd, link)
        self.broker.syncer = None
        self._syncer.close()
        self._epoll.close()
        if self._spare_fd is not None:
            os.close(self._spare_fd)

    def _accept(self, listener: socket.socket, make_peer: Callable[[str], Peer]) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS:
                    self._refuse(listener)
                else:
                    LOG.warning("accept failed: %s", error)
                return
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            where = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"
            self._add(sock, make_peer(where))

    def _refuse(self, listener: socket.socket) -> None:
        """Out of descriptors: the spare one takes the connection and hangs up, so that nobody waits in vain."""
        if self._spare_fd is not None:
            os.close(self._spare_fd)
        with contextlib.suppress(OSError):
            listener.accept()[0].close()
        self._spare_fd = _spare()
        if self._spare_fd is None:
            self._pause(listener)
        LOG.warning("no file descriptor left: a connection was refused")

    def _pause(self, listener: socket.socket) -> None:
        """Not even a spare descriptor: epoll would report the listener again and again."""
        fd = listener.fileno()
        self._epoll.modify(fd, 0)

        def go_on() -> None:
            if fd in self._listeners:
                self._epoll.modify(fd, IN)

        self.broker.call_at(self.broker.now_s + PAUSE_S, go_on)

    def _add(self, sock: socket.socket, peer: Peer) -> None:
        fd = sock.fileno()
        self._links[fd] = _Link(sock, peer)
        self._fds[peer] = fd
        self._epoll.register(fd, IN)

    def _read(self, fd: int, link: _Link) -> None:
        try:
            data = link.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(fd, link)
            return
        try:
            link.peer.feed(data)
        except Exception as error:
            LOG.exception("a connection's input made the broker fail")
            link.peer.crash(error)
        if link.peer.is_finished:
            self.broker.dirty.append(link.peer)

    def _send(self, peer: Peer) -> None:
        fd = self._fds.get(peer)
        if fd is None:
            return
        link = self._links[fd]
        if peer.is_abandoned:
            self._drop(fd, link)
            return
        data = peer.output.take()
        if link.rest is not None:
            if data:
                link.rest = memoryview(bytes(link.rest) + data)
            self._set_events(fd, link)
            return
        if data:
            try:
                sent = link.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._drop(fd, link)
                return
            if sent < len(data):
                link.rest = memoryview(data)[sent:]
            peer.output.note_sent(sent)
        self._settle(fd, link)

    def _send_rest(self, fd: int, link: _Link) -> None:
        assert link.rest is not None
        try:
            sent = link.socket.send(link.rest)
        except BlockingIOError:
            return
        except OSError:
            self._drop(fd, link)
            return
        rest = link.rest[sent:]
        link.rest = rest if len(rest) else None
        link.peer.output.note_sent(sent)
        self._settle(fd, link)

    def _settle(self, fd: int, link: _Link) -> None:
        if link.rest is None and link.peer.is_finished:
            self._drop(fd, link)
        else:
            self._set_events(fd, link)

    def _set_events(self, fd: int, link: _Link) -> None:
        is_read = not (link.peer.is_paused or link.peer.output.is_congested)
        wanted = (IN if is_read else 0) | (0 if link.rest is None else OUT)
        if wanted != link.events:
            link.events = wanted
            self._epoll.modify(fd, wanted)

    def _drop(self, fd: int, link: _Link) -> None:
        del self._links[fd]
        del self._fds[link.peer]
        self._epoll.unregister(fd)
        link.socket.close()
        link.peer.lost()


def _spare() -> int | None:
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None

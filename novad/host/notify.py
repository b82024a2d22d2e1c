"""Readiness and status said by the services themselves: sd_notify(3) datagrams.

One socket serves all. Who sent a datagram is told by the kernel (SCM_CREDENTIALS), never by its text; a sender
that is not a child itself is looked up through its parents, so that a helper like `systemd-notify` may speak
for its service, and a stranger may not.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from novad.host import proc
from novad.host.hub import Watcher

DATAGRAM_BYTES = 4096
# A flood of one service must not starve the rest: what is more waits in the socket's buffer.
DATAGRAMS_PER_TURN = 64
ANCESTORS = 16


@dataclass(frozen=True, slots=True)
class Notification:
    """The assignments of one datagram, with the pid of the child it speaks for."""

    pid: int
    fields: dict[str, str]


class NotifySocket:
    """Receives at `path`; calls `on_notification` for what comes from a child (`is_child(pid)`)."""

    def __init__(
        self, path: str, is_child: Callable[[int], bool], on_notification: Callable[[Notification], None]
    ) -> None:
        self.path = path
        self._is_child = is_child
        self._on_notification = on_notification
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        self._socket.bind(path)
        os.chmod(path, 0o600)
        self._watcher = Watcher(self._socket.fileno(), self.receive)

    def receive(self) -> None:
        """Take in what has come."""
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                data, ancillary, _flags, _address = self._socket.recvmsg(DATAGRAM_BYTES, 256)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                return
            for sender in self._take_ancillary(ancillary):
                child = self._child_of(sender)
                if child is not None:
                    self._on_notification(Notification(child, parse(data)))

    def _take_ancillary(self, ancillary: list[tuple[int, int, bytes]]) -> Iterator[int]:
        for level, kind, data in ancillary:
            if level != socket.SOL_SOCKET:
                continue
            if kind == socket.SCM_RIGHTS:
                # FDSTORE and BARRIER: closing what was passed is the answer to both.
                for (fd,) in struct.iter_unpack("i", data[: len(data) // 4 * 4]):
                    os.close(fd)
            elif kind == socket.SCM_CREDENTIALS:
                pid, uid, _gid = struct.unpack("iII", data[:12])
                if uid in (os.getuid(), 0):
                    yield pid

    def _child_of(self, pid: int) -> int | None:
        for _ in range(ANCESTORS):
            if self._is_child(pid):
                return pid
            found = proc.stat(pid)
            if found is None or found.parent <= 1:
                return None
            pid = found.parent
        return None

    def close(self) -> None:
        self._watcher.close()
        self._socket.close()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass


class NotifyPipe:
    """Readiness by s6's protocol: one newline on a pipe. End-of-file without one says nothing."""

    def __init__(self, on_ready: Callable[[], None]) -> None:
        self._read_fd, self.child_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_fd, False)
        self._on_ready = on_ready
        self._watcher: Watcher | None = Watcher(self._read_fd, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._read_fd, DATAGRAM_BYTES)
        except BlockingIOError:
            return
        if b"\n" in data:
            self._on_ready()
        if b"\n" in data or not data:
            self.close()

    def close(self) -> None:
        """No more is expected; `child_fd` belongs to whoever spawns. May be called twice."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
            os.close(self._read_fd)


def parse(data: bytes) -> dict[str, str]:
    """`KEY=value` lines; anything else in the datagram is ignored, as sd_notify(3) says."""
    lines = data.decode(errors="replace").split("\n")
    return {key: value for key, separator, value in (line.partition("=") for line in lines) if separator}

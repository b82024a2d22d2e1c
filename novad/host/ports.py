"""The ports of the cluster: held for their owners, handed over, and who has a busy one.

A port that a process binds itself is held by a socket of ours until the moment of its start, so that no stranger
takes it between two lives. A port with `listen = true` is bound and listened on here for good and passed to each
child (sd_listen_fds(3)): while the child is replaced, connections wait in the queue and none is refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator

from novad.core.spec import ProcessSpec
from novad.host import deaf, proc

HOST = "127.0.0.1"
BACKLOG = 1024
LISTEN = "0A"

# Descriptors that are kept free from the start of novad, because passed sockets must be 3, 4, 5 ... in the child.
FIRST_PASSED = 3
PASSED = 16


def reserve_descriptors(used_fd: int = -1) -> int:
    """Occupy the numbers that sockets are passed under; to be called before anything else opens a file.

    A descriptor that was inherited under one of them is moved; returns where `used_fd` is now.
    """
    if used_fd >= 0:
        moved_fd = fcntl.fcntl(used_fd, fcntl.F_DUPFD_CLOEXEC, FIRST_PASSED + PASSED)
        os.close(used_fd)
        used_fd = moved_fd
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for number in range(FIRST_PASSED, FIRST_PASSED + PASSED):
        if number != null:
            os.dup2(null, number, inheritable=False)
    return used_fd


class Busy(Exception):
    """A port that a process needs belongs to somebody else; the text names the owner."""


class Ports:
    """Sockets by process and port name."""

    def __init__(self) -> None:
        self._held: dict[str, list[socket.socket]] = {}
        self._listening: dict[tuple[str, str], socket.socket] = {}

    def hold(self, spec: ProcessSpec) -> None:
        """Keep the ports of a process that does not run; what is taken already is left to `release` to report."""
        self._free(spec.name)
        held = self._held.setdefault(spec.name, [])
        for port in spec.ports.values():
            if port.listen:
                continue
            try:
                held.append(_bind(port.number))
            except OSError:
                continue

    def release(self, spec: ProcessSpec) -> None:
        """Give the ports to the child that is about to start. Raises `Busy`."""
        self._free(spec.name)
        for name, port in spec.ports.items():
            if port.listen:
                self._listen(spec, name)
                continue
            try:
                _bind(port.number).close()
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise Busy(_busy(name, port.number)) from error
                raise Busy(f"port {port.number} ({name}): {error.strerror}") from error

    def _free(self, name: str) -> None:
        for sock in self._held.pop(name, ()):
            sock.close()

    def _listen(self, spec: ProcessSpec, name: str) -> None:
        number = spec.ports[name].number
        known = self._listening.get((spec.name, name))
        if known is not None and known.getsockname()[1] == number:
            return
        if known is not None:
            known.close()
        try:
            sock = _bind(number)
        except OSError as error:
            raise Busy(_busy(name, number)) from error
        sock.listen(BACKLOG)
        self._listening[spec.name, name] = sock

    def passed(self, spec: ProcessSpec) -> list[tuple[str, int]]:
        """The listening sockets for a child of `spec`, as names and descriptors of ours."""
        return [
            (name, self._listening[spec.name, name].fileno()) for name, port in spec.ports.items() if port.listen
        ]

    def cure(self, name: str) -> None:
        """The sockets that novad listens on for `name` hear again. Raises `OSError`."""
        deaf.cure(
            [os.getpid()], {sock.getsockname()[1] for key, sock in self._listening.items() if key[0] == name}
        )

    def forget(self, name: str) -> None:
        """The process is defined no longer."""
        self._free(name)
        for key in [key for key in self._listening if key[0] == name]:
            self._listening.pop(key).close()


def _bind(number: int) -> socket.socket:
    """A bound socket. A port in TIME_WAIT is free enough; while we have it nobody else binds it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, number))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError:
        sock.close()
        raise
    return sock


def _busy(name: str, number: int) -> str:
    owners = [f"pid {pid} ({proc.command(pid)}, for {_age(pid)})" for pid in owners_of(number)]
    return f"port {number} ({name}) is taken by {', '.join(owners) or 'a process of another user'}"


def _age(pid: int) -> str:
    found = proc.stat(pid)
    if found is None:
        return "a moment"
    seconds = (proc.now_ticks() - found.started) // os.sysconf("SC_CLK_TCK")
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def owners_of(number: int) -> list[int]:
    """The pids that listen on TCP port `number`, as far as this user may see."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(number)}
    return [pid for pid in proc.all_pids() if inodes & proc.open_files(pid)] if inodes else []


def _listening_inodes(number: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in proc.read(table).decode().splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == number:
                yield fields[9]

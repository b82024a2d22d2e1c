"""A port that nothing arrives at, without root: a filter on the sockets of the process that has it.

A classic BPF program of one instruction (socket(7), SO_ATTACH_FILTER) drops every packet for a socket before TCP
sees it: a new connection gets no answer, one that is open stalls and goes on afterwards. The socket belongs to another
process, so a duplicate of its descriptor is borrowed for the moment of the call (pidfd_getfd(2), which ptrace(2)'s
rules allow to the parent that novad is) and closed at once: nothing is held, and no port stays taken. A connection that
waits to be accepted at that moment has no descriptor yet, and is missed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator

from novad.host import proc

# <asm-generic/unistd.h>: the same number on every architecture that Python runs on but alpha.
PIDFD_GETFD = 438
# <asm-generic/socket.h>.
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
# struct sock_filter: `ret #0`, keep nothing of the packet (<linux/filter.h>).
DROP = struct.pack("HBBI", 0x06, 0, 0, 0)
TABLES = ("tcp", "tcp6", "udp", "udp6")


def deafen(pids: Iterable[int], ports: set[int]) -> int:
    """Drop what arrives at the sockets of `pids` that are bound to `ports`; how many sockets there were.

    Raises `OSError` where their descriptors may not be had: a program of another user, ptrace forbidden.
    """
    program = ctypes.create_string_buffer(DROP)
    return _set(pids, ports, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


def cure(pids: Iterable[int], ports: set[int]) -> None:
    """Take the filters off again. Raises `OSError` as `deafen` does."""
    _set(pids, ports, SO_DETACH_FILTER, 0)


def _set(pids: Iterable[int], ports: set[int], option: int, value: int | bytes) -> int:
    count = 0
    for sock in _sockets(pids, ports):
        with sock:
            try:
                sock.setsockopt(socket.SOL_SOCKET, option, value)
            except OSError as error:
                # A socket that is younger than the filter has none to be taken off.
                if error.errno != errno.ENOENT:
                    raise
            count += 1
    return count


def _sockets(pids: Iterable[int], ports: set[int]) -> Iterator[socket.socket]:
    """Duplicates of the sockets; who ends meanwhile has none."""
    for pid in pids:
        inodes = {f"socket:[{inode}]" for inode in _inodes(pid, ports)}
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            for fd in _descriptors(pid, inodes):
                yield socket.socket(fileno=_borrow(pidfd, fd))
        except ProcessLookupError:
            continue
        finally:
            os.close(pidfd)


def _inodes(pid: int, ports: set[int]) -> Iterator[str]:
    """Of every TCP and UDP socket in the network namespace of `pid` that is bound to one of `ports`."""
    for table in TABLES:
        for line in proc.read(f"/proc/{pid}/net/{table}").decode().splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and int(fields[1].rpartition(":")[2], 16) in ports:
                yield fields[9]


def _descriptors(pid: int, links: set[str]) -> list[int]:
    found = []
    try:
        names = os.listdir(f"/proc/{pid}/fd") if links else []
    except OSError:
        return []
    for name in names:
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}") in links:
                found.append(int(name))
        except OSError:
            continue
    return found


def _borrow(pidfd: int, fd: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    borrowed = libc.syscall(PIDFD_GETFD, pidfd, fd, 0)
    if borrowed < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(borrowed)

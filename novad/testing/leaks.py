"""What a run left behind: processes with their ports, temporary files and sockets, shared memory.

Nothing is guessed from what else happens on the machine: processes are known by their mark, files by a temporary
directory that the run has to itself, and shared memory counts only where no living process uses it.
"""

from __future__ import annotations

import os
import select
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from novad.client import sweep
from novad.client.machine import LISTEN, command_line, socket_inodes

SHM = Path("/dev/shm")
# __SO_ACCEPTCON of <linux/net.h>, in the flags of /proc/net/unix.
ACCEPTS = 0x10000
# What ends when its parent does (the resource tracker of multiprocessing) is a moment late, and no leak.
ENDING_S = 0.5


class LeakGate:
    """Made before the run; `environment` is for the command and the services, `close` ends it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nv-leak-"))
        self._shm_before = shared_memory()

    def environment(self) -> dict[str, str]:
        return {"TMPDIR": str(self.folder)}

    def files(self) -> list[str]:
        """What lies in the temporary directory, and shared memory that nobody uses any more."""
        found = []
        for path in sorted(self.folder.rglob("*")):
            mode = path.lstat().st_mode
            if not stat.S_ISDIR(mode) or not any(path.iterdir()):
                found.append(f"{kind_of(mode)} {path.relative_to(self.folder)} in $TMPDIR")
        fresh = shared_memory() - self._shm_before
        used = mapped() if fresh else set()
        return found + [f"shared memory {path}" for path in sorted(fresh - used)]

    def close(self) -> None:
        import shutil

        shutil.rmtree(self.folder, ignore_errors=True)


def kind_of(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "unix socket"
    return "directory" if stat.S_ISDIR(mode) else "file"


def processes(token: str, owners: Mapping[int, str]) -> list[str]:
    """Living processes with `token` in their environment, each with what it listens on and is connected to.

    `owners` names the services by their ports.
    """
    end_by_themselves(sweep.members([token]), ENDING_S)
    return [describe(pid, owners) for pid in sorted(sweep.members([token]))]


def end_by_themselves(pids: Iterable[int], seconds: float) -> None:
    """Returns when all are gone, at the latest after `seconds`."""
    until_s = time.monotonic() + seconds
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        select.select([pidfd], [], [], max(0.0, until_s - time.monotonic()))
        os.close(pidfd)


def describe(pid: int, owners: Mapping[int, str]) -> str:
    folder = Path("/proc", str(pid))
    inodes = socket_inodes(folder)
    ports = [f"listens on port {port}" for inode, port in listening().items() if inode in inodes]
    ports += [f"listens on {path}" for inode, path in unix_listening().items() if inode in inodes]
    return ", ".join([f"process {pid} ({command_line(folder)})", *ports, *connections(inodes, owners)])


def listening() -> dict[str, int]:
    """Inode -> port of every listening TCP socket."""
    return {row[9]: port_of(row[1]) for row in tcp_rows() if row[3] == LISTEN}


def unix_listening() -> dict[str, str]:
    """Inode -> path of every unix socket that takes connections (unix(7): `@` is an abstract name)."""
    try:
        rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    except OSError:
        return {}
    return {row[6]: row[7] for row in rows if len(row) > 7 and int(row[3], 16) & ACCEPTS}


def connections(inodes: set[str], owners: Mapping[int, str]) -> list[str]:
    """The TCP connections among `inodes`, those to databases and brokers too."""
    established = "01"
    found = [port_of(row[2]) for row in tcp_rows() if row[3] == established and row[9] in inodes]
    return [f"connected to {owners[port]} (port {port})" if port in owners else f"connected to port {port}"
            for port in found]  # fmt: skip


def tcp_rows() -> list[list[str]]:
    rows: list[list[str]] = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows += [line.split() for line in Path(table).read_text().splitlines()[1:]]
        except OSError:
            continue
    return rows


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def shared_memory() -> set[str]:
    """The files of this user in /dev/shm."""
    found = set()
    for path in SHM.glob("*"):
        try:
            if path.lstat().st_uid == os.getuid():
                found.add(str(path))
        except OSError:
            continue
    return found


def mapped() -> set[str]:
    """What of /dev/shm a living process has mapped."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            for line in sweep.read(name, "maps").decode(errors="replace").splitlines():
                _, slash, rest = line.partition("/dev/shm/")
                if slash:
                    found.add(f"/dev/shm/{rest.removesuffix(' (deleted)')}")
    return found

"""What is true of processes, read from /proc and from nowhere else.

novad is never asked, and its own reader of /proc is not used: an error there must not hide itself here.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Seen:
    """One living process: `service` is the VICTIM of its environment, `started` in ticks since boot."""

    pid: int
    service: str
    state: str
    parent: int
    session: int
    started: int
    command: str

    @property
    def is_leader(self) -> bool:
        """Whether it leads its session, as every child of a supervisor of ours does."""
        return self.pid == self.session


def processes(token: str) -> list[Seen]:
    """Every living process whose environment or command line holds `token`."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and (seen := look(int(name), token)) is not None:
            found.append(seen)
    return found


def look(pid: int, token: str = "") -> Seen | None:
    """The process `pid` if it lives and holds `token`; zombies are dead."""
    environment, command = _read(pid, "environ"), _read(pid, "cmdline")
    if token.encode() not in environment and token.encode() not in command:
        return None
    fields = _read(pid, "stat").rpartition(b") ")[2].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    service = re.search(rb"(?:^|\0)VICTIM=([^\0]*)", environment)
    return Seen(
        pid,
        os.fsdecode(service[1]) if service else "",
        fields[0].decode(),
        int(fields[1]),
        int(fields[3]),
        int(fields[19]),
        os.fsdecode(command.replace(b"\0", b" ")),
    )


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def zombies_of(parent: int) -> list[int]:
    """The dead children of `parent` that it has not reaped."""
    found = []
    for name in os.listdir("/proc"):
        fields = _read(int(name), "stat").rpartition(b") ")[2].split() if name.isdigit() else []
        if len(fields) > 1 and fields[0] == b"Z" and int(fields[1]) == parent:
            found.append(int(name))
    return found


def cpu_s(pid: int) -> float:
    """User and system time of `pid`, all its threads, without its children."""
    fields = _read(pid, "stat").rpartition(b") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def listeners(port: int) -> list[int]:
    """The pids that listen on the TCP port `port` of this machine."""
    rows = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()
    ]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and inodes & open_files(int(name))]


def open_files(pid: int) -> set[str]:
    """What the descriptors of `pid` lead to; nothing where it is gone or somebody else's."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    except OSError:
        pass
    return found


def watched(pid: int) -> int:
    """How many descriptors the epoll instances of `pid` watch."""
    count = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}") == "anon_inode:[eventpoll]":
                count += Path(f"/proc/{pid}/fdinfo/{name}").read_text().count("tfd:")
        except OSError:
            continue
    return count


def wakeups(pid: int) -> int:
    """How often `pid` has gone to sleep by itself and been woken."""
    found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1])


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pss_bytes(pid: int) -> int:
    """Memory with what is shared counted in proportion (smaps_rollup, proc_pid_smaps(5))."""
    found = re.search(r"^Pss:\s*(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024

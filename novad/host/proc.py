"""What /proc says about processes: children, states, marks.

Read-only, and never an error: who is gone is gone. (prctl(2) makes an exception of `become_subreaper`.)
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Stat:
    """Of /proc/PID/stat (proc_pid_stat(5)): `started` is in clock ticks since boot."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int


def read(path: str) -> bytes:
    """The content of a file under /proc, or nothing."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""


def stat(pid: int) -> Stat | None:
    """The process `pid`, or None when there is none."""
    data = read(f"/proc/{pid}/stat")
    # The name is in parentheses and may hold anything, parentheses included.
    fields = data[data.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        return None
    return Stat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def zombie_status(pid: int) -> int | None:
    """The wait status of a zombie (the 52nd field), None for anything else.

    None for 0 too: that is also what the kernel tells who may not know it.
    """
    data = read(f"/proc/{pid}/stat")
    fields = data[data.rfind(b")") + 2 :].split()
    return int(fields[49]) or None if len(fields) > 49 and fields[0] == b"Z" else None


def is_alive(pid: int) -> bool:
    """Whether `pid` exists and is more than a zombie."""
    found = stat(pid)
    return found is not None and found.state not in "ZX"


def is_paused(pid: int) -> bool:
    """Whether a signal has stopped it; nobody is told of that, and whoever sent it need not have been novad."""
    found = stat(pid)
    return found is not None and found.state == "T"


def is_same(pid: int, started: int) -> bool:
    """Whether `pid` is still the process that was started then."""
    found = stat(pid)
    return found is not None and found.started == started


def children(pid: int) -> list[int]:
    """The direct children of `pid`, those of all its threads."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        found += map(int, read(f"/proc/{pid}/task/{thread}/children").split())
    return found


def descendants(pid: int) -> list[int]:
    """All that descend from `pid`, without it; parents before their children."""
    found: list[int] = []
    seen = {pid}
    queue = [pid]
    while queue:
        for child in children(queue.pop()):
            if child not in seen:
                seen.add(child)
                found.append(child)
                queue.append(child)
    return found


def all_pids() -> Iterator[int]:
    """Every process of the machine that this user can see."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def environ(pid: int) -> dict[str, str]:
    """The environment that `pid` was started with; empty where it is not ours to read."""
    items = (item.partition(b"=") for item in read(f"/proc/{pid}/environ").split(b"\0") if b"=" in item)
    return {os.fsdecode(key): os.fsdecode(value) for key, _, value in items}


def mark(pid: int, variable: str) -> str:
    """The value of one environment variable of `pid`, or nothing."""
    wanted = variable.encode() + b"="
    for item in read(f"/proc/{pid}/environ").split(b"\0"):
        if item.startswith(wanted):
            return os.fsdecode(item[len(wanted) :])
    return ""


def by_tie(variable: str) -> dict[str | int, list[int]]:
    """All processes of the machine by what ties them to a leader: mark, session, group. One look serves many."""
    found: dict[str | int, list[int]] = {}
    for pid in all_pids():
        known = stat(pid)
        if known is not None:
            ties: set[str | int] = {mark(pid, variable), known.session, known.group}
            for tie in ties:
                found.setdefault(tie, []).append(pid)
    return found


def command(pid: int) -> str:
    """The command line of `pid` for a human, at most 200 characters."""
    words = read(f"/proc/{pid}/cmdline").rstrip(b"\0").split(b"\0")
    line = b" ".join(words).decode(errors="backslashreplace")
    return line[:200] or f"[{read(f'/proc/{pid}/comm').decode(errors='replace').strip()}]"


def held_by(pid: int) -> str:
    """What keeps `pid` from acting on a signal, for a human; nothing where nothing does.

    A frozen cgroup of either version (cgroups(7)), or a sleep in the kernel that no signal ends (state D).
    """
    for line in read(f"/proc/{pid}/cgroup").decode(errors="replace").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "freezer" in controllers.split(","):
            frozen = read(f"/sys/fs/cgroup/freezer{path}/freezer.state").startswith(b"FR")
        else:
            frozen = b"frozen 1" in read(f"/sys/fs/cgroup{path}/cgroup.events")
        if frozen:
            return f"frozen by its cgroup {path}"
    found = stat(pid)
    return "waiting in the kernel (state D)" if found is not None and found.state == "D" else ""


def now_ticks() -> int:
    """The present in the unit and from the zero of `Stat.started`."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def open_files(pid: int) -> set[str]:
    """The paths that `pid` has open; empty where that is not ours to see."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return set()
    found = set()
    for name in names:
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            continue
    return found


def boot_id() -> str:
    """Different after each boot: a pid from before says nothing."""
    return read("/proc/sys/kernel/random/boot_id").decode().strip()


def become_subreaper() -> None:
    """Orphans among our descendants become our children. Raises `OSError`."""
    import ctypes  # 10 ms that no client has to pay

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")

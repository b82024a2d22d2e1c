"""What /proc knows that explains a crash: who listens on a port, whether the kernel killed for memory.

Looked up only when a hint needs it, without psutil (its import alone costs a quarter of a whole command).
Linux only; elsewhere there is no answer and the hint is less precise.
"""

from __future__ import annotations

import os
from pathlib import Path

LISTEN = "0A"


def port_owner(number: int) -> str | None:
    """`pid 4011 (python -m http.server)`, or None where nobody listens or it cannot be seen."""
    inodes = listening_inodes(number)
    if not inodes:
        return None
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and inodes & socket_inodes(folder):
            return f"pid {folder.name} ({command_line(folder)})"
    return "a process of another user"


def listening_inodes(number: int) -> set[str]:
    """Inodes of the sockets that listen on `number`, from /proc/net/tcp and tcp6 (proc(5))."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == number:
                found.add(fields[9])
    return found


def socket_inodes(folder: Path) -> set[str]:
    found = set()
    try:
        for entry in os.scandir(folder / "fd"):
            target = os.readlink(entry.path)
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass
    return found


def command_line(folder: Path) -> str:
    try:
        words = (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    text = " ".join(word.decode(errors="replace") for word in words if word)
    return text if len(text) <= 80 else text[:79] + "…"


def oom_kills() -> int | None:
    """How often the kernel killed a process of this control group for memory (cgroup v2), else of the machine."""
    try:
        group = Path("/proc/self/cgroup").read_text().strip().rpartition(":")[2]
        rows = Path(f"/sys/fs/cgroup{group}/memory.events").read_text().split()
        return int(rows[rows.index("oom_kill") + 1])
    except (OSError, ValueError):
        pass
    try:
        rows = Path("/proc/vmstat").read_text().split()
        return int(rows[rows.index("oom_kill") + 1])
    except (OSError, ValueError):
        return None

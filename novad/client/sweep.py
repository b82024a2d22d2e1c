"""Ends what is left of a cluster whose owner is gone: the last resort, run by a guardian or by the owner itself.

Stands alone: the standard library's smallest part and nothing of novad, because a guardian starts this file with
`python -I -S` in the moment of need. Linux only. A process belongs to the cluster when its environment holds one
of the tokens, when it descends from one that does, when it lives in the session of a recorded leader, or when it is
the daemon itself. Every pid is pinned by a pidfd and looked at again before it is killed, so that a pid that was
given to somebody else meanwhile is left alone.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys

ROUNDS = 50
# A daemon that lives stops its services in good order; this is how long it may take for that.
GRACE_MS = 1200


def read(pid: int | str, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""


def fields_of(pid: int | str) -> tuple[bytes, int, int, int] | None:
    """(state, parent, session, start time) of /proc/PID/stat (proc_pid_stat(5)), or None."""
    fields = read(pid, "stat").rpartition(b") ")[2].split()
    return (fields[0], int(fields[1]), int(fields[3]), int(fields[19])) if len(fields) > 19 else None


def leaders(run_dir: str) -> dict[int, int]:
    """Session number -> start time of each leader that the records of the cluster name."""
    found = {}
    folder = f"{run_dir}/records"
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        try:
            with open(f"{folder}/{name}", "rb") as file:
                identity = json.load(file)["identity"]
            found[identity["pid"]] = identity["started"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def members(tokens: list[str], run_dir: str = "", known: dict[int, int] | None = None) -> dict[int, int]:
    """Pid -> start time of everything alive that belongs to the cluster."""
    wanted, daemon, known = [os.fsencode(token) for token in tokens], daemon_mark(run_dir), known or {}
    seen = ((int(name), fields_of(name)) for name in os.listdir("/proc") if name.isdigit())
    table = {pid: fields for pid, fields in seen if fields is not None and fields[0] not in b"ZX"}
    found = set()
    for pid, (_, _, session, started) in table.items():
        environ = read(pid, "environ")
        is_recorded = session in known and started >= known[session]
        is_daemon = bool(run_dir) and daemon in read(pid, "cmdline")
        if is_recorded or is_daemon or any(token in environ for token in wanted):
            found.add(pid)
    while grown := {pid for pid, fields in table.items() if fields[1] in found and pid not in found}:
        found |= grown
    found.discard(os.getpid())
    return {pid: table[pid][3] for pid in found}


def pinned(pid: int, started: int) -> int | None:
    """A pidfd of `pid` while it still is the process that began at `started`, else None."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    fields = fields_of(pid)
    if fields is not None and fields[3] == started:
        return fd
    os.close(fd)
    return None


def kill(pids: dict[int, int]) -> None:
    """SIGKILL to each; returns once they are dead or half a second is over."""
    fds = [fd for fd in (pinned(pid, started) for pid, started in pids.items()) if fd is not None]
    for fd in fds:
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        except OSError:
            pass
    for fd in fds:
        wait_for(fd, 500)
        os.close(fd)


def wait_for(fd: int, milliseconds: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(milliseconds)


def daemon_mark(run_dir: str) -> bytes:
    """What the command line of the daemon of `run_dir` holds, and no other one."""
    return b"\0--run-dir\0" + os.fsencode(run_dir) + b"\0"


def sweep(tokens: list[str], run_dir: str = "") -> bool:
    """Kill everything that carries a token or belongs to the daemon of `run_dir`, until a look finds nothing.

    True when nothing is left.
    """
    known = leaders(run_dir) if run_dir else {}
    for _ in range(ROUNDS):
        found = members(tokens, run_dir, known)
        if not found:
            return True
        kill(found)
    return False


def let_the_daemon_end(run_dir: str) -> None:
    """Wait for the daemon of `run_dir`, if one lives, as long as its good order may take."""
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        if daemon_mark(run_dir) in read(pid, "cmdline"):
            fields = fields_of(pid)
            fd = pinned(pid, fields[3]) if fields else None
            if fd is not None:
                wait_for(fd, GRACE_MS)
                os.close(fd)


def main(run_dir: str, cluster_token: str, *command_tokens: str) -> None:
    """The command's processes at once, then the cluster: in good order if its daemon lives, else by force."""
    if command_tokens:
        sweep(list(command_tokens))
    let_the_daemon_end(run_dir)
    sweep([cluster_token, *command_tokens], run_dir)
    shutil.rmtree(run_dir, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

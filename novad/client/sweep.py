"""Ends what is left of a cluster whose owner is gone: the last resort, run by a guardian or by the owner itself.

Stands alone: the standard library's smallest part and nothing of novad, because a guardian starts this file with
`python -I -S` in the moment of need. Linux only. A process belongs to the cluster when its environment holds one
of the tokens, when it descends from one that does, when it lives in the session of a recorded leader, or when it is
the daemon itself. Every pid is pinned by a pidfd and looked at again before it is killed, so that a pid that was
given to somebody else meanwhile is left alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import sys

ROUNDS = 50
# The definition of a cluster that is not down, in its run directory.
CLUSTER = "cluster.json"
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
    try:
        names = os.listdir(folder)
    except OSError:
        # Removed by a daemon that ends at this very moment, perhaps.
        names = []
    for name in names:
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
    present = {pid: fields for pid, fields in seen if fields is not None}
    # A number that a stranger has by now is his, and so is the session that he leads.
    known = {pid: started for pid, started in known.items() if pid not in present or present[pid][3] == started}
    table = {pid: fields for pid, fields in present.items() if fields[0] not in b"ZX"}
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
    return kill_all(tokens, run_dir, leaders(run_dir) if run_dir else {})


def kill_all(tokens: list[str], run_dir: str, known: dict[int, int]) -> bool:
    for _ in range(ROUNDS):
        found = members(tokens, run_dir, known)
        if not found:
            return True
        kill(found)
    return False


def daemons(run_dir: str) -> list[int]:
    """A pidfd of each living daemon of `run_dir`."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        if daemon_mark(run_dir) in read(pid, "cmdline"):
            fields = fields_of(pid)
            fd = pinned(pid, fields[3]) if fields else None
            if fd is not None:
                found.append(fd)
    return found


def let_the_daemon_end(run_dir: str) -> None:
    """Wait for the daemon of `run_dir`, if one lives, as long as its good order may take."""
    for fd in daemons(run_dir):
        wait_for(fd, GRACE_MS)
        os.close(fd)


def bury(run_dir: str, cluster_token: str) -> None:
    """The end of a cluster whose owning `up` is dead: in good order, however long that takes, while its daemon lives.

    What a daemon that was killed leaves behind is killed, unless another daemon has taken it over by then.
    """
    for fd in daemons(run_dir):
        # It has seen the end of the lease before us, unless it began just now and nobody had told it of one.
        signal.pidfd_send_signal(fd, signal.SIGTERM)
        wait_for(fd, -1)
        os.close(fd)
    lock = f"{run_dir}/lock"
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(lock).st_ino != os.fstat(fd).st_ino:
            return
    except OSError:
        # The directory is gone: it ended in good order. Or somebody else holds the lock, and all that was ours.
        return
    # A daemon that begins now is told that it is not alone: it must not be swept away for that.
    if os.path.exists(f"{run_dir}/{CLUSTER}"):
        kill_all([cluster_token], "", leaders(run_dir))
    for name in os.listdir(run_dir):
        if name != "lock":
            remove(f"{run_dir}/{name}")
    remove(lock)
    try:
        os.rmdir(run_dir)
    except OSError:
        pass


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            os.unlink(path)
        except OSError:
            pass


def main(run_dir: str, cluster_token: str, *command_tokens: str) -> None:
    """The command's processes at once, then the cluster: in good order if its daemon lives, else by force."""
    if command_tokens:
        sweep(list(command_tokens))
    let_the_daemon_end(run_dir)
    sweep([cluster_token, *command_tokens], run_dir)
    shutil.rmtree(run_dir, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1] == "--bury":
        bury(*sys.argv[2:])
    else:
        main(*sys.argv[1:])

"""Replacing novad's code in place: exec with the same pid, no child restarted, no line lost.

The new code is tried first, in a process of its own; only what can be imported and run is exec'd. After the exec the
children are ours still (same pid), the lock is held still (its descriptor is inherited), the pipes are reopened through
/proc, terminals are inherited, and what is neither in a record nor in the kernel, the unfinished lines, goes through a
file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import eventlet

from novad.core.place import Place
from novad.host.output import Output
from novad.host.probe import Failed, Surroundings, try_exec
from novad.host.record import read_json, write_json

HANDOVER = "handover.json"
CHECK_S = 30.0


def check(around: Surroundings, then: Callable[[str], None]) -> None:
    """Try the new code; `then(reason)` is called later, with nothing where it is good."""

    def attempt() -> None:
        try:
            try_exec((sys.executable, "-P", "-m", "novad.daemon", "--check"), around, CHECK_S)
        except Failed as failure:
            then(f"the new code does not start: {failure}")
        else:
            then("")

    eventlet.spawn(attempt)


@dataclass(frozen=True, slots=True)
class Handover:
    """By process: the unfinished line of each stream, and our end of a terminal, which is open still."""

    partials: dict[str, dict[str, str]] = field(default_factory=dict)
    terminals: dict[str, int] = field(default_factory=dict)


def write_handover(run_dir: str, outputs: dict[str, Output]) -> Handover:
    """Keep what neither a record nor the kernel keeps. Raises `OSError`."""
    found = Handover(
        {name: partials for name, output in outputs.items() if (partials := output.take_partials())},
        {name: fd for name, output in outputs.items() if (fd := output.terminal_fd) is not None},
    )
    write_json(f"{run_dir}/{HANDOVER}", {"pid": os.getpid(), **asdict(found)})
    return found


def read_handover(run_dir: str) -> Handover:
    """What this very process wrote before it changed its code; asked once."""
    path = f"{run_dir}/{HANDOVER}"
    data = read_json(path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return Handover()
    if not isinstance(data, dict) or data.get("pid") != os.getpid():
        return Handover()
    return Handover(data["partials"], data["terminals"])


def exec_again(place: Place, lock_fd: int, soft_nofile: int, handover: Handover) -> None:
    """Become the new code. Does not return; raises `OSError` where exec fails, and then nothing has changed."""
    words = [
        sys.executable, "-P", "-m", "novad.daemon", "--config", place.config, "--namespace", place.namespace,
        "--run-dir", place.run_dir, "--state-dir", place.state_dir, "--log-dir", place.log_dir,
        "--lock-fd", str(lock_fd), "--soft-nofile", str(soft_nofile),
    ]  # fmt: skip
    kept = (lock_fd, *handover.terminals.values())
    for fd in kept:
        os.set_inheritable(fd, True)
    try:
        os.execv(sys.executable, words)
    finally:
        for fd in kept:
            os.set_inheritable(fd, False)

"""Replacing novad's code in place: exec with the same pid, no child restarted, no line lost.

The new code is tried first, in a process of its own; only what can be imported and run is exec'd. After the exec the
children are ours still (same pid), the lock is held still (its descriptor is inherited), the pipes are reopened through
/proc, and what is neither in a record nor in the kernel, the unfinished lines, goes through a file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

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


def write_handover(run_dir: str, outputs: dict[str, Output]) -> None:
    """Keep what the streams hold of unfinished lines. Raises `OSError`."""
    partials = {name: found for name, output in outputs.items() if (found := output.take_partials())}
    write_json(f"{run_dir}/{HANDOVER}", partials)


def read_handover(run_dir: str) -> dict[str, dict[str, str]]:
    """The unfinished lines by process and stream; asked once."""
    path = f"{run_dir}/{HANDOVER}"
    partials = read_json(path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return {}
    return partials if isinstance(partials, dict) else {}


def exec_again(place: Place, lock_fd: int, soft_nofile: int) -> None:
    """Become the new code. Does not return; raises `OSError` where exec fails, and then nothing has changed."""
    words = [
        sys.executable, "-P", "-m", "novad.daemon", "--config", place.config, "--namespace", place.namespace,
        "--run-dir", place.run_dir, "--state-dir", place.state_dir, "--log-dir", place.log_dir,
        "--lock-fd", str(lock_fd), "--soft-nofile", str(soft_nofile),
    ]  # fmt: skip
    os.set_inheritable(lock_fd, True)
    try:
        os.execv(sys.executable, words)
    finally:
        os.set_inheritable(lock_fd, False)

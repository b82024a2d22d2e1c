"""The exit status of a process that is not our child and that its parent has not reaped."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from novad.host import pidfd

# Prints the pid of a child that ends as told once a line comes, and reaps it only at the next line.
PARENT = """
import os, signal, sys
child = os.fork()
if not child:
    sys.stdin.buffer.raw.read(1)
    exec(sys.argv[1])
print(child, flush=True)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
sys.stdin.buffer.raw.read(1)
os.wait()
print("reaped", flush=True)
sys.stdin.buffer.raw.read(1)
"""


@pytest.mark.parametrize(
    ("end", "code"), [("os._exit(7)", 7), ("os._exit(0)", None), ("os.kill(os.getpid(), signal.SIGKILL)", -9)]
)
def test_the_status_is_known_before_the_parent_reaps(end: str, code: int | None) -> None:
    command = [sys.executable, "-c", PARENT, end]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as parent:
        assert parent.stdin
        assert parent.stdout
        pid = int(parent.stdout.readline())
        descriptor = os.pidfd_open(pid)
        assert pidfd.status_of_the_dead(descriptor, pid) is None
        parent.stdin.write(b"x")
        assert select.select([descriptor], [], [], 10)[0]
        assert pidfd.exit_status(descriptor) is None
        status = pidfd.status_of_the_dead(descriptor, pid)
        assert (None if status is None else os.waitstatus_to_exitcode(status)) == code
        parent.stdin.write(b"x")
        assert parent.stdout.readline() == b"reaped\n"
        assert pidfd.status_of_the_dead(descriptor, pid) == pidfd.exit_status(descriptor)
        os.close(descriptor)

"""The stacks of Python children that do not stop, written into their own logs before they are killed."""

from __future__ import annotations

import os
import signal

from novad.host import proc

# Real-time, so that no program uses it for something of its own; kept in step with injected/sitecustomize.py.
SIGNAL = signal.SIGRTMAX - 1


def python_path(before: str | None) -> str:
    """PYTHONPATH with the folder in front whose sitecustomize makes a Python process able to show its stacks."""
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "injected")
    return f"{folder}{os.pathsep}{before}" if before else folder


def can_show(pid: int) -> bool:
    """Whether `pid` catches the signal; sent to another process it would kill it."""
    for line in proc.read(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"SigCgt:"):
            return bool(int(line.split()[1], 16) >> (SIGNAL - 1) & 1)
    return False

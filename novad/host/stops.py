"""Which processes a signal may have stopped, told by the kernel at the moment (SIGCHLD, waitid(2) with WSTOPPED).

To look into /proc for each of 500 processes costs more than all the rest of an answer to `status`.
"""

from __future__ import annotations

import os

from novad.host import proc


class Stops:
    def __init__(self) -> None:
        self._suspects: set[int] = set()

    def suspect(self, pid: int) -> None:
        """It was born before us: another one may have been told."""
        self._suspects.add(pid)

    def hear(self) -> None:
        """To be called at SIGCHLD."""
        try:
            while (found := os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG)) is not None:
                self._suspects.add(found.si_pid)
        except ChildProcessError:
            pass

    def is_paused(self, pid: int, is_child: bool) -> bool:
        """Whether it is stopped now."""
        if is_child and pid not in self._suspects:
            return False
        if proc.is_paused(pid):
            return True
        self._suspects.discard(pid)
        return False

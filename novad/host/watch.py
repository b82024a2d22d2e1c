"""Changes of files, from a process of its own (`novad.host.watcher`) that reads what the kernel says of them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from novad.host.hub import Watcher
from novad.host.launch import Command, spawn

READ_BYTES = 65536


class FileWatch:
    """Calls `on_changes(paths)` with what changed below `roots`, first with nothing once it watches.

    `on_end()` is called when the watching process dies by itself. Raises `SpawnError` or `OSError`.
    """

    def __init__(
        self, roots: Sequence[str], on_changes: Callable[[list[str]], None], on_end: Callable[[], None]
    ) -> None:
        self._on_changes = on_changes
        self._on_end = on_end
        self._partial = b""
        life_fd, self._life_fd = os.pipe2(os.O_CLOEXEC)
        self._read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        try:
            argv = [sys.executable, "-P", "-m", "novad.host.watcher", str(life_fd), *roots]
            self.pid = spawn(Command(argv, "/", dict(os.environ), write_fd, 2, pass_fds=(life_fd,)))
            self._pidfd = os.pidfd_open(self.pid)
        except Exception:
            os.close(self._life_fd)
            os.close(self._read_fd)
            raise
        finally:
            os.close(life_fd)
            os.close(write_fd)
        os.set_blocking(self._read_fd, False)
        self._news = Watcher(self._read_fd, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._read_fd, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
            self._on_end()
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            found: Any = json.loads(line)
            self._on_changes(found)

    def close(self) -> None:
        """Watch no longer. The process is an orphan to be reaped from now on."""
        self._news.close()
        os.close(self._read_fd)
        os.close(self._life_fd)
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(self._pidfd)

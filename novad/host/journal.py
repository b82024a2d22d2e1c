"""The journal: one JSON object a line, appended, bounded in size; what `why` and `--timeline` read.

Written for people and tests, never read back to decide anything. A write that fails is forgotten: supervision
does not depend on it.
"""

from __future__ import annotations

import json
import os
from collections import deque
from typing import Any

from novad.host import clock
from novad.host.disk import Disk

MAX_BYTES = 4 * 1024 * 1024
TAIL_BYTES = 512 * 1024
# Events of one write: what comes together while the disk is slow must not be more than a file may hold.
AT_ONCE = 200


class Journal:
    """Appends to `path`; when it is full it becomes `path.1`."""

    def __init__(self, path: str, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        self._pending: deque[dict[str, Any]] = deque()
        self._is_asked = False
        self._fd = -1
        self._size = 0

    def write(self, type: str, **fields: Any) -> None:
        """One event with its wall-clock time. What comes together is put into words, and written, at once."""
        self._pending.append({"at": round(clock.wall(), 6), "type": type, **fields})
        if not self._is_asked:
            self._is_asked = True
            self._disk.submit(self._write)

    def _write(self) -> None:
        """In the disk's thread, as everything that has to do with the descriptor."""
        self._is_asked = False
        while self._pending:
            events = [self._pending.popleft() for _ in range(min(len(self._pending), AT_ONCE))]
            self._append("".join(f"{json.dumps(event, separators=(',', ':'))}\n" for event in events).encode())

    def _append(self, data: bytes) -> None:
        try:
            if self._fd < 0:
                self._open()
            if self._size + len(data) > MAX_BYTES:
                self._close()
                os.replace(self.path, f"{self.path}.1")
                self._open()
            self._size += os.write(self._fd, data)
        except OSError:
            self._close()

    def settle(self) -> None:
        """Until all that was said before is written, unless the disk is slow."""
        self._disk.settle()

    def tail(self) -> list[dict[str, Any]]:
        """The last events, oldest first; what cannot be read is left out."""
        self.settle()
        try:
            with open(self.path, "rb") as file:
                file.seek(max(os.fstat(file.fileno()).st_size - TAIL_BYTES, 0))
                lines = file.read().splitlines()
        except OSError:
            return []
        events = []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                events.append(event)
        return events

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def close(self) -> None:
        self._disk.submit(self._close)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

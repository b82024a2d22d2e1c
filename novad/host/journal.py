"""The journal: one JSON object a line, appended, bounded in size; what `why` and `--timeline` read.

Written for people and tests, never read back to decide anything. A write that fails is forgotten: supervision
does not depend on it.
"""

from __future__ import annotations

import json
import os
from typing import Any

from novad.host import clock

MAX_BYTES = 4 * 1024 * 1024
TAIL_BYTES = 512 * 1024


class Journal:
    """Appends to `path`; when it is full it becomes `path.1`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._size = 0

    def write(self, type: str, **fields: Any) -> None:
        """One event with its wall-clock time."""
        line = json.dumps({"at": round(clock.wall(), 6), "type": type, **fields}, separators=(",", ":"))
        data = line.encode() + b"\n"
        try:
            if self._fd < 0:
                self._open()
            if self._size + len(data) > MAX_BYTES:
                self.close()
                os.replace(self.path, f"{self.path}.1")
                self._open()
            self._size += os.write(self._fd, data)
        except OSError:
            self.close()

    def tail(self) -> list[dict[str, Any]]:
        """The last events, oldest first; what cannot be read is left out."""
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
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

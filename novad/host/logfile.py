"""A log file with rotation. Only the disk's thread writes it; `size` and `inode` may be read by anybody."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from novad.core.spec import Log
from novad.host import clock

Part = bytes | memoryview


class LogFile:
    """Appends to `path`; at `max_bytes` it becomes `path.1`, that becomes `path.2`, and so on.

    A write that fails (disk full, directory gone) is counted, never raised, and the count is written as soon as the
    file can be written again.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._fd = -1
        self.size = 0
        self.inode = 0
        self._lost_lines = 0
        self._error = ""
        self._is_full = False

    @property
    def max_bytes(self) -> int:
        """What it holds at most, unless one write is more than that."""
        return self._log.max_bytes

    def write(self, parts: Sequence[Part]) -> None:
        """Write whole lines, given in parts; or count them as lost and remember why."""
        if self._lost_lines:
            self._confess()
        self._lose(parts, self._append(parts))

    def _confess(self) -> None:
        """Say how many lines were lost."""
        lost = f"{self._lost_lines} line{'' if self._lost_lines == 1 else 's'} lost"
        said = f"{clock.stamp()} n {lost}: {self._error}\n"
        if not self._append([said.encode()]):
            self._lost_lines = 0

    def _lose(self, parts: Sequence[Part], error: str) -> None:
        if error:
            self._error = error
            self._lost_lines += b"".join(parts).count(b"\n")

    def _append(self, parts: Sequence[Part]) -> str:
        """What went wrong, or nothing."""
        length = sum(map(len, parts))
        before = -1
        try:
            if self._is_full:
                raise OSError(errno.ENOSPC, "a drill")
            if self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
                # Somebody removed it: nobody would ever read what went there.
                self.close()
            if self._fd < 0:
                self._open()
            if self.size and self.size + length > self._log.max_bytes:
                self._rotate()
            before = self.size
            count = os.writev(self._fd, parts)
            self.size += count
            if count < length:
                self._write_rest(b"".join(parts)[count:])
        except OSError as error:
            self._take_back(before)
            self.close()
            return f"{self._log.path}: {os.strerror(error.errno or 0)}"
        return ""

    def _take_back(self, size: int) -> None:
        """A write that ran out of room in its middle leaves no half of a line, so that the count is exact."""
        if 0 <= size < self.size:
            try:
                os.ftruncate(self._fd, size)
            except OSError:
                pass

    def _write_rest(self, data: bytes) -> None:
        while data:
            count = os.write(self._fd, data)
            self.size += count
            data = data[count:]

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(self._log.path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self._log.path), 0o700, exist_ok=True)
            self._fd = os.open(self._log.path, flags, 0o600)
        found = os.fstat(self._fd)
        self.size, self.inode = found.st_size, found.st_ino

    def fill(self, is_full: bool) -> None:
        """Behave as if the disk were full, or no longer."""
        self._is_full = is_full

    def _rotate(self) -> None:
        self.close()
        path = self._log.path
        for index in range(self._log.files - 1, 0, -1):
            older = path if index == 1 else f"{path}.{index - 1}"
            if os.path.exists(older):
                os.replace(older, f"{path}.{index}")
        if self._log.files <= 1:
            os.unlink(path)
        self._open()

    def length(self) -> int:
        """Bytes that the file holds now; a file that was never opened is looked up."""
        if self._fd >= 0:
            return self.size
        try:
            return os.stat(self._log.path).st_size
        except OSError:
            return 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.inode = self.size = 0

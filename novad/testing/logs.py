"""What services have written since a moment: positions in their log files, and the lines from there on.

A file that was rotated since is found by its inode under one of its older names.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from novad.client.link import connect
from novad.client.owned import Owned

STAMP = re.compile(rb"^\S{26}Z [oen] ")


class Marks:
    """A position in the log of each process of a cluster."""

    def __init__(self, cluster: Owned) -> None:
        self._paths = {spec.name: spec.log.path for spec in cluster.cluster.processes}
        self._at: dict[str, tuple[int, int]] = {}
        self.set()

    def set(self) -> None:
        """From now on."""
        for name, path in self._paths.items():
            self._at[name] = position(path)

    def lines(self, name: str) -> list[str]:
        """The lines of a process since the mark, with their stamps. Raises `KeyError` for an unknown process."""
        text = since(self._paths[name], *self._at[name])
        return text.decode("utf-8", "replace").splitlines()

    def written(self) -> dict[str, list[str]]:
        """The lines of every process that wrote any."""
        found = {name: self.lines(name) for name in self._paths}
        return {name: lines for name, lines in found.items() if lines}


def position(path: str) -> tuple[int, int]:
    """Inode and size; (0, 0) where there is no file yet."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_ino, found.st_size


def since(path: str, inode: int, size: int) -> bytes:
    """What was written after the position, through rotations."""
    older: list[str] = []
    number = 0
    while True:
        name = f"{path}.{number}" if number else path
        now, _ = position(name)
        if now == 0:
            # The marked file is gone, or there was none: everything that is there came later.
            return b"".join(read(other, 0) for other in reversed(older))
        if now == inode:
            return read(name, size) + b"".join(read(other, 0) for other in reversed(older))
        older.append(name)
        number += 1


def read(path: str, start: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read()
    except OSError:
        return b""


@dataclass
class ServiceLog:
    """The log of one process, from `marks` on."""

    name: str
    cluster: Owned
    marks: Marks
    why: Callable[[str], str]
    _found: int = field(default=0, init=False)

    def lines(self) -> list[str]:
        """The lines since the test began, stamped."""
        return self.marks.lines(self.name)

    def text(self) -> str:
        """The same without stamps, as the process wrote it."""
        return "\n".join(STAMP.sub(b"", line.encode()).decode() for line in self.lines())

    def wait_for(self, pattern: str, timeout: float = 10.0) -> str:
        """The first line since the test began that holds the regular expression, waiting for it if need be.

        Raises `TimeoutError` with what the process is doing.
        """
        wanted = re.compile(pattern)
        end_s = time.monotonic() + timeout
        with connect(self.cluster.place) as link:
            # Subscribed first and read then: no line falls between. A line is told before it is in the file.
            link.request("subscribe", states=False, lines=[self.name])
            lines = self.lines()
            while True:
                for line in lines:
                    if wanted.search(line[30:]):
                        # Answered when it is in the file, where `lines` and marks look.
                        link.request("ping")
                        return line[30:]
                event = link.next_event(max(0.0, end_s - time.monotonic()))
                if event is None:
                    break
                lines = event["text"].splitlines() if event["type"] == "lines" else self.lines()
        raise TimeoutError(f"{self.name} wrote no line with {pattern!r} in {timeout:g} s\n{self.why(self.name)}")

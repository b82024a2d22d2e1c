"""The last lines that a dead child wrote, found in its log by where the log stood when it died."""

from __future__ import annotations

import os
from collections.abc import Sequence

TAIL_BYTES = 32768
STAMP_LENGTH = len("2026-11-23T17:01:02.123456Z ")


def last_lines(path: str, position: Sequence[int], count: int) -> list[str]:
    """The last `count` lines of stderr before `position` (inode, offset), of stdout where stderr said nothing.

    Only lines since the child's start count. A log that was rotated away or lost gives no lines.
    """
    inode, end = position
    for candidate in (path, f"{path}.1", f"{path}.2"):
        try:
            with open(candidate, "rb") as file:
                if os.fstat(file.fileno()).st_ino == inode:
                    start = max(end - TAIL_BYTES, 0)
                    data = os.pread(file.fileno(), end - start, start)
                    return _pick(data.split(b"\n"), count)
        except OSError:
            continue
    return []


def _pick(lines: list[bytes], count: int) -> list[str]:
    run: list[bytes] = []
    for line in reversed(lines):
        if line[STAMP_LENGTH:].startswith(b"n started"):
            break
        run.append(line)
    run.reverse()
    for letter in (b"e", b"o"):
        chosen = [line[STAMP_LENGTH + 2 :] for line in run if line[STAMP_LENGTH : STAMP_LENGTH + 1] == letter]
        if chosen:
            return [line.decode(errors="backslashreplace") for line in chosen[-count:]]
    return []

"""Where a request ends, read strictly: what two servers might read in two ways is refused, and nobody smuggles.

eventlet and the standard library take for a head what is left of one, drop every line after one that they do not
understand, take the first of two lengths, and pass over a transfer coding that they do not know: its body would be
the next request. Source: RFC 9112, sections 5 to 7.
"""

from __future__ import annotations

import re
from email.message import Message
from typing import Any

from nova import green

_END = (b"\r\n", b"\n")
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r?\n")
_LENGTH = re.compile(r"[0-9]+")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}[ \t]*(;[^\r\n]*)?\r?\n")
_CHUNK_LINE_MAX = 4096


class Head:
    """The file that the lines of a head are read from; afterwards it says what it has seen."""

    def __init__(self, lines: Any) -> None:
        self._lines = lines
        self._has_ended = False
        self._are_fields = True

    @property
    def is_whole(self) -> bool:
        """Every line was a field, and the last one empty."""
        return self._has_ended and self._are_fields

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._lines.readline(size)
        self._has_ended = line in _END
        self._are_fields &= self._has_ended or _FIELD.fullmatch(line) is not None
        return line


def is_unambiguous(headers: Message) -> bool:
    """Whether the body's length, its coding and the host are each said once, in a way that there is no doubt of."""
    lengths, hosts = headers.get_all("content-length", []), headers.get_all("host", [])
    codings = [coding.strip().lower() for coding in headers.get_all("transfer-encoding", [])]
    are_lengths = all(_LENGTH.fullmatch(length.strip()) for length in lengths)
    return are_lengths and len(lengths) <= 1 and len(hosts) <= 1 and codings in ([], ["chunked"])


class Chunks:
    """The file that a chunked body is read from; `readline` without a size is about a line between the data."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._expected = "size"

    def read(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        return data

    def readline(self, size: int | None = None) -> bytes:
        """Raises `ChunkReadError` for a line that does not belong there."""
        line: bytes = self._file.readline(_CHUNK_LINE_MAX if size is None else size)
        if size is None:
            self._check(line)
        return line

    def _check(self, line: bytes) -> None:
        """Nothing that comes after a fault belongs anywhere, so it stays one."""
        match self._expected:
            case "size" if _CHUNK_SIZE.fullmatch(line):
                self._expected = "end of data" if int(line.split(b";")[0], 16) else "trailer"
            case "end of data" if line in _END:
                self._expected = "size"
            case "trailer":
                pass
            case expected:
                self._expected = "nothing"
                raise green.wsgi.ChunkReadError(f"in a chunked body, {expected} expected: {line[:20]!r}")

"""A piece of configuration text and the places in it.

Offsets count characters of the text as the parser saw it (newlines are `\\n`); lines and columns count from 1.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import NamedTuple


class Span(NamedTuple):
    """The half-open range `[start, end)` of a text."""

    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Source:
    """One file: `path` as it was opened, `shown` as reports name it."""

    path: str
    shown: str
    text: str
    _starts: list[int] = field(default_factory=lambda: [0], repr=False)

    def __post_init__(self) -> None:
        position = self.text.find("\n")
        while position >= 0:
            self._starts.append(position + 1)
            position = self.text.find("\n", position + 1)

    def locate(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset; one behind the end is the end of the last line."""
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line without its newline."""
        start = self._starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start : end if end >= 0 else len(self.text)]

"""Which log lines a user wants to see: grep, exclude, level, stream, with context. Pure.

A `Sieve` belongs to one process, because context and the level of a traceback's lines are those of the lines
around them in the same log. It takes stored blocks (fast) and live lines alike.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from novad.client.logfile import TEXT

LEVELS = {
    "trace": 0, "debug": 10, "info": 20, "audit": 20, "notice": 25, "warn": 30, "warning": 30,
    "error": 40, "err": 40, "critical": 50, "fatal": 50, "crit": 50,
}  # fmt: skip
LEVEL_WORD = re.compile(
    rb"\b(TRACE|DEBUG|INFO|AUDIT|NOTICE|WARN(?:ING)?|ERROR|CRIT(?:ICAL)?|FATAL)\b"
    rb"|\blevel=\"?(trace|debug|info|notice|warn(?:ing)?|error|err|crit(?:ical)?|fatal)\b"
    rb"|^\[?(trace|debug|info|notice|warning|warn|error|critical|fatal)[\]:]",
)
TRACEBACK = b"Traceback (most recent call last)"
LEVEL_WITHIN = 200

# A pattern with one of these may match a line and not the same line inside a block, or the other way round.
NOT_IN_BLOCKS = re.compile(rb"[\^$]|\\[AZzbB]|\(\?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options ask for. `streams` holds the letters of the streams to show."""

    grep: re.Pattern[bytes] | None = None
    exclude: re.Pattern[bytes] | None = None
    level: int | None = None
    streams: bytes = b"oen"
    context: int = 0

    @property
    def is_everything(self) -> bool:
        return self.grep is None and self.exclude is None and self.level is None and len(self.streams) == 3

    def told(self) -> str:
        """`only /timeout/, error and above`; "" where everything is wanted."""
        parts = [f"/{self.grep.pattern.decode(errors='replace')}/"] if self.grep else []
        if self.level is not None:
            parts.append(f"{next(word for word, level in LEVELS.items() if level == self.level)} and above")
        return f"only {', '.join(parts)}" if parts else ""


class Sieve:
    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._before: deque[bytes] = deque(maxlen=wanted.context or None)
        self._after = 0
        self._level = 20

    def blocks(self, stored: Iterable[bytes]) -> Iterator[bytes]:
        """The wanted lines of whole blocks."""
        pattern = self.wanted.grep
        if pattern is None or self.wanted.context or self.wanted.level or NOT_IN_BLOCKS.search(pattern.pattern):
            for block in stored:
                yield from self.lines(block[:-1].split(b"\n"))
            return
        for block in stored:
            yield from self._search(block, pattern)

    def lines(self, given: Iterable[bytes]) -> Iterator[bytes]:
        """The wanted lines of `given`, with their context."""
        if self.wanted.is_everything:
            yield from given
            return
        context = self.wanted.context
        for line in given:
            if self.is_wanted(line):
                yield from self._before
                self._before.clear()
                self._after = context
                yield line
            elif self._after:
                self._after -= 1
                yield line
            elif context:
                self._before.append(line)

    def is_wanted(self, line: bytes) -> bool:
        wanted = self.wanted
        if line[TEXT - 2 : TEXT - 1] not in wanted.streams:
            return False
        text = line[TEXT:]
        if wanted.level is not None and self._level_here(line, text) < wanted.level:
            return False
        if wanted.exclude is not None and wanted.exclude.search(text):
            return False
        return wanted.grep is None or wanted.grep.search(text) is not None

    def _level_here(self, line: bytes, text: bytes) -> int:
        """A remark of novad's own stands between the lines of a service and belongs to none of them."""
        if line[TEXT - 2 : TEXT - 1] == b"n":
            return level_of(text, LEVELS["info"])
        self._level = level_of(text, self._level)
        return self._level

    def _search(self, block: bytes, pattern: re.Pattern[bytes]) -> Iterator[bytes]:
        """Searches the block as a whole and looks closely only at lines in which something was found.

        A match that runs over a line's end is one of its first line only if that line matches alone; the search
        goes on at the next line in any case, so that no line is passed over.
        """
        position = 0
        while (match := pattern.search(block, position)) is not None:
            begin = block.rfind(b"\n", 0, match.start()) + 1
            end = block.find(b"\n", match.start())
            if end < 0:
                return
            line = block[begin:end]
            if self.is_wanted(line):
                yield line
            position = end + 1


def level_of(text: bytes, previous: int) -> int:
    """The level of a line; one that names none (a traceback's, a continuation) has that of the line before."""
    match = LEVEL_WORD.search(text, 0, LEVEL_WITHIN)
    if match:
        word = match[1] or match[2] or match[3]
        return LEVELS[word.decode().lower()]
    return LEVELS["error"] if TRACEBACK in text else previous

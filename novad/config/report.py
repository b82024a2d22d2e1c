"""Faults of the configuration, and how they look.

    error: unknown key `depend_on` in [services.api]
     --> nova.toml:8:1
      |
    8 | depend_on = ["broker"]
      | ^^^^^^^^^
      = help: did you mean `after`?

The layout is rustc's. A report always holds every fault that was found.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from novad.config.source import Source, Span
from novad.core.errors import ConfigError

MAX_LINE = 100  # columns of a quoted line; a longer one is cut around the fault
MIN_LINE = 20
CUT = "..."

RED, BLUE, BOLD, RESET = "\x1b[1;31m", "\x1b[1;34m", "\x1b[1m", "\x1b[0m"


@dataclass(frozen=True)
class Fault:
    """One mistake. `message` is a sentence, `help` are further lines; without `source` it stands in no file."""

    message: str
    source: Source | None = None
    span: Span | None = None
    help: tuple[str, ...] = ()

    @property
    def location(self) -> str:
        """`file:line:column`, as far as it is known."""
        if self.source is None:
            return ""
        if self.span is None:
            return self.source.shown
        line, column = self.source.locate(self.span.start)
        return f"{self.source.shown}:{line}:{column}"


class ConfigFaults(ConfigError):
    """Everything that is wrong with a configuration, in the order of the files; exit code 78."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(render(self.faults), "novad check --explain KEY describes a key")

    def render(self, *, color: bool = False, short: bool = False, width: int | None = None) -> str:
        """The report for `width` columns; `short` gives one `file:line:column: error: text` line a fault."""
        return render(self.faults, color=color, short=short, width=width)


def render(faults: Iterable[Fault], *, color: bool = False, short: bool = False, width: int | None = None) -> str:
    """The report of `faults`, without a final newline. A quoted line and its carets keep within `width` columns."""
    faults = tuple(faults)
    if short:
        return "\n".join(_short(fault) for fault in faults)
    paint = _paint if color else _plain
    return "\n".join([*(_long(fault, paint, width) for fault in faults), _summary(faults)])


def _summary(faults: tuple[Fault, ...]) -> str:
    errors = "1 error" if len(faults) == 1 else f"{len(faults)} errors"
    files = {fault.source.shown for fault in faults if fault.source}
    if not files:
        return f"{errors}; nothing was started"
    where = next(iter(files)) if len(files) == 1 else f"{len(files)} files"
    return f"{errors} in {where}; nothing was started"


def _short(fault: Fault) -> str:
    text = f"error: {fault.message}"
    if fault.help:
        text += f" ({'; '.join(fault.help)})"
    return _clean(f"{fault.location}: {text}" if fault.source else text)


def _paint(text: str, style: str) -> str:
    return f"{style}{text}{RESET}" if text else text


def _plain(text: str, style: str) -> str:
    return text


def _long(fault: Fault, paint: Callable[[str, str], str], columns: int | None) -> str:
    lines = [f"{paint('error', RED)}{paint(': ' + _clean(fault.message), BOLD)}"]
    width = 1
    if fault.source is not None and fault.span is not None:
        number, column = fault.source.locate(fault.span.start)
        width = len(str(number))
        room = MAX_LINE if columns is None else max(MIN_LINE, min(MAX_LINE, columns - width - 3 - 2 * len(CUT)))
        quoted, mark = _quote(fault.source.line(number), column - 1, fault.span.end - fault.span.start, room)
        bar = paint("|", BLUE)
        lines += [
            f"{' ' * width}{paint('-->', BLUE)} {_clean(fault.location)}",
            f"{' ' * width} {bar}",
            f"{paint(str(number), BLUE)} {bar} {quoted}".rstrip(),
            f"{' ' * width} {bar} {mark[0]}{paint(mark[1], RED)}",
        ]
    elif fault.source is not None:
        lines.append(f"{' ' * width}{paint('-->', BLUE)} {_clean(fault.location)}")
    lines += [f"{' ' * width} {paint('=', BLUE)} help: {_clean(text)}" for text in fault.help]
    return "\n".join(lines)


def _quote(line: str, start: int, length: int, room: int) -> tuple[str, tuple[str, str]]:
    """The line as it can be printed, and below it the indent and the carets under `[start, start + length)`."""
    end = min(start + max(length, 1), max(len(line), start + 1))
    if len(line) > room:
        first = max(0, min(start - 20, len(line) - room))
        head = CUT if first else ""
        tail = CUT if first + room < len(line) else ""
        line = head + line[first : first + room] + tail
        start, end = start - first + len(head), end - first + len(head)
        end = max(min(end, len(line) - len(tail)), start + 1)
    before = "".join(_blank(char) for char in line[:start])
    carets = sum(_cells(char) for char in line[start:end]) or 1
    return _clean(line), (before, "^" * carets)


def _clean(text: str) -> str:
    """The text on one line and without what a terminal would obey: names and keys are the user's."""
    if text.isprintable():
        return text
    return "".join(char if char == "\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _blank(char: str) -> str:
    return "\t" if char == "\t" else " " * _cells(char)


def _cells(char: str) -> int:
    """How many columns a terminal gives to the character."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1

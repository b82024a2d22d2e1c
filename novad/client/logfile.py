"""Reading the stamped log files: spans of lines, from the end, from a time, of one run.

A line is `2026-11-23T17:01:02.123456Z o text`; stamps have one width and sort as bytes, so that time is found by
bisection and files merge without parsing a date. Rotated files are `path.1` (newer) to `path.N` (oldest). Reads
use pread on blocks: a file that somebody truncates meanwhile gives fewer lines, not a crash.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STAMP = 27
TEXT = 30
BLOCK = 4 * 1024 * 1024
TAIL_BLOCK = 64 * 1024
STARTED = b"Z n started"


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `end` of a file, whole lines."""

    path: str
    start: int
    end: int


def stored(path: str, end: int | None = None) -> list[Span]:
    """Everything kept of one log, oldest first. `end`: where a follower takes over in the newest file."""
    paths = [path]
    number = 1
    while os.path.exists(older := f"{path}.{number}"):
        paths.insert(0, older)
        number += 1
    spans = []
    for each in paths:
        try:
            spans.append(Span(each, 0, os.path.getsize(each)))
        except FileNotFoundError:
            continue
    return spans if end is None else cut_at(spans, end)


def cut_at(spans: list[Span], end: int) -> list[Span]:
    """`spans` up to offset `end` of the newest file, as it was when the offset was told.

    A newest file that is shorter than `end` was begun since: the offset is one of the file before it.
    """
    if not spans:
        return spans
    newest = spans[-1]
    if newest.end < end and len(spans) > 1:
        return cut_at(spans[:-1], end)
    return [*spans[:-1], Span(newest.path, newest.start, min(newest.end, end))]


def blocks(span: Span) -> Iterator[bytes]:
    """The bytes of a span in blocks that end with a line; a last line without its newline is left out."""
    with contextlib.suppress(FileNotFoundError), open(span.path, "rb", buffering=0) as file:
        position, rest = span.start, b""
        while position < span.end:
            data = os.pread(file.fileno(), min(BLOCK, span.end - position), position)
            if not data:
                return
            position += len(data)
            whole, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                yield whole + newline


def lines(spans: list[Span]) -> Iterator[bytes]:
    """All lines, without their newlines."""
    for span in spans:
        for block in blocks(span):
            yield from block[:-1].split(b"\n")


def last_lines(path: str, count: int, end: int | None = None) -> list[bytes]:
    """The last `count` lines of what is kept."""
    return tail(stored(path, end), count)


def tail(spans: list[Span], count: int) -> list[bytes]:
    found: list[bytes] = []
    for span in reversed(spans):
        if len(found) >= count:
            break
        found = tail_of(span, count - len(found)) + found
    return found


def tail_of(span: Span, count: int) -> list[bytes]:
    """The last `count` lines of a span, read backwards."""
    position, data = span.end, b""
    if count <= 0:
        return []
    with contextlib.suppress(FileNotFoundError), open(span.path, "rb", buffering=0) as file:
        while position > span.start and data.count(b"\n") <= count:
            step = min(TAIL_BLOCK, position - span.start)
            position -= step
            data = os.pread(file.fileno(), step, position) + data
    whole = data[: data.rfind(b"\n") + 1]
    if position > span.start:
        whole = whole[whole.find(b"\n") + 1 :]
    return whole[:-1].split(b"\n")[-count:] if whole else []


def since(spans: list[Span], stamp: bytes) -> list[Span]:
    """What is not older than `stamp`."""
    return [Span(span.path, offset_of(span, stamp), span.end) for span in spans]


def until(spans: list[Span], stamp: bytes) -> list[Span]:
    """What is older than `stamp`."""
    return [Span(span.path, span.start, offset_of(span, stamp)) for span in spans]


def offset_of(span: Span, stamp: bytes) -> int:
    """Where the first line begins that is not older than `stamp`, by bisection over bytes."""
    with contextlib.suppress(FileNotFoundError), open(span.path, "rb", buffering=0) as file:
        low, high = span.start, span.end
        while low < high:
            middle = (low + high) // 2
            begin = line_start(file.fileno(), middle, low)
            line = read_line(file.fileno(), begin, span.end)
            if line[:STAMP] < stamp:
                low = min(begin + len(line), high)
            else:
                high = begin
        return low
    return span.end


def line_start(fd: int, position: int, lowest: int) -> int:
    """The beginning of the line that holds `position`; not below `lowest`, which begins a line."""
    while position > lowest:
        step = min(4096, position - lowest)
        data = os.pread(fd, step, position - step)
        newline = data.rfind(b"\n")
        if newline >= 0:
            return position - step + newline + 1
        position -= step
    return lowest


def read_line(fd: int, position: int, end: int) -> bytes:
    """The line that begins at `position`, with its newline."""
    data = b""
    while position + len(data) < end:
        chunk = os.pread(fd, 4096, position + len(data))
        if not chunk:
            break
        data += chunk
        newline = data.find(b"\n")
        if newline >= 0:
            return data[: newline + 1]
    return data


def of_run(spans: list[Span], number: int) -> list[Span]:
    """One run: 0 the last one that was started, -1 the one before. Nothing where it is not kept."""
    starts = [(index, offset) for index, span in enumerate(spans) for offset in run_starts(span)]
    wanted = len(starts) - 1 + number
    if number > 0 or wanted < 0:
        return []
    first, offset = starts[wanted]
    last, end = starts[wanted + 1] if wanted + 1 < len(starts) else (len(spans) - 1, spans[-1].end)
    picked = [
        Span(
            span.path,
            offset if index == first else span.start,
            end if index == last else span.end,
        )
        for index, span in enumerate(spans)
        if first <= index <= last
    ]
    return [span for span in picked if span.start < span.end]


def run_starts(span: Span) -> Iterator[int]:
    """Offsets of the lines with which novad noted a start."""
    position = span.start
    for block in blocks(span):
        found = block.find(STARTED)
        while found >= 0:
            begin = block.rfind(b"\n", 0, found) + 1
            # A child may write the same words; only at this column they are novad's.
            if found - begin == STAMP - 1:
                yield position + begin
            found = block.find(STARTED, found + 1)
        position += len(block)


def stored_names(log_dir: str) -> dict[str, str]:
    """Process name -> path of its log, from the directory: what `logs` shows while no daemon runs."""
    try:
        found = sorted(Path(log_dir).glob("*.log"))
    except OSError:
        return {}
    return {path.stem: str(path) for path in found}

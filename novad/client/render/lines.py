"""Log lines as a person reads them: `12:31:07.412 api | text`. Pure but for the time zone.

Stamps in the files are UTC; shown are local times. The local hour and minute are worked out once a minute of
log, not once a line.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

from novad.client.render.escape import for_terminal
from novad.client.render.paint import RESET, Paint

STAMP, STREAM, TEXT = 27, 28, 30
STREAMS = {"o": "stdout", "e": "stderr", "n": "novad"}


@dataclass(frozen=True, slots=True)
class LineStyle:
    """`prefix_width` 0 shows no name. `for_terminal` makes the text harmless; else bytes stay as they are."""

    paint: Paint = field(default_factory=lambda: Paint(False))
    prefix_width: int = 0
    time: Literal["short", "full", "none"] = "short"
    for_terminal: bool = True
    highlight: re.Pattern[str] | None = None


@lru_cache(maxsize=4096)
def local_minute(minute: bytes) -> str | None:
    """`2026-11-23T17:01` (UTC) as local `18:01`; None where it is no time."""
    try:
        moment = datetime.strptime(minute.decode("ascii"), "%Y-%m-%dT%H:%M").replace(tzinfo=UTC)
    except (ValueError, UnicodeDecodeError):
        return None
    return moment.astimezone().strftime("%H:%M")


def short_time(line: bytes) -> str:
    minute = local_minute(line[:16])
    return "??:??:??.???" if minute is None else minute + line[16:23].decode("ascii", "replace")


def full_time(line: bytes) -> str:
    """ISO with the local offset, in microseconds."""
    try:
        moment = datetime.strptime(line[:26].decode("ascii"), "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=UTC)
    except (ValueError, UnicodeDecodeError):
        return "?"
    return moment.astimezone().isoformat(timespec="microseconds")


def format_line(name: str, line: bytes, style: LineStyle) -> str:
    """One stored line, without its newline, as text; undecodable bytes as surrogates when not for a terminal."""
    paint = style.paint
    data = line[TEXT:]
    text = for_terminal(data, colour=paint.on) if style.for_terminal else data.decode("utf-8", "surrogateescape")
    stream = line[STREAM : STREAM + 1]
    if paint.on and stream == b"n":
        text = paint(text, "dim")
    if style.highlight is not None:
        text = marked(text, style.highlight, paint)
    parts = []
    if style.time == "short":
        parts.append(paint(short_time(line), "dim"))
    elif style.time == "full":
        parts.append(paint(full_time(line), "dim"))
    if style.prefix_width:
        bar = paint("|", "red") if stream == b"e" else paint("|", "dim")
        parts.append(f"{paint.service(name, name.ljust(style.prefix_width))} {bar}")
    elif stream == b"n" and style.time != "none":
        parts.append(paint("·", "dim"))
    parts.append(text)
    return " ".join(parts)


def marked(text: str, pattern: re.Pattern[str], paint: Paint) -> str:
    if not paint.on:
        return text
    return pattern.sub(lambda match: f"\x1b[7m{match[0]}{RESET}" if match[0] else "", text)


def json_line(name: str, line: bytes) -> str:
    """One line as a JSON document."""
    return json.dumps(
        {
            "schema": 1,
            "name": name,
            "at": line[:STAMP].decode("ascii", "replace"),
            "stream": STREAMS.get(line[STREAM : STREAM + 1].decode("ascii", "replace"), "?"),
            "text": line[TEXT:].decode("utf-8", "replace"),
        },
        ensure_ascii=False,
    )
